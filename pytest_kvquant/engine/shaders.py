"""Sources and libraries of Metal kernels that a build reads at run time.

A build with ``GGML_METAL_EMBED_LIBRARY=OFF`` compiles ``ggml-metal.metal`` (newer ones
``kernels/*.metal``) when it starts, from the folder that ``GGML_METAL_PATH_RESOURCES`` names, else
from beside its own library, else from the current folder. They are as much part of the build as its
libraries: an edited kernel is another build. Standard library only: parent and child read it.
"""

from __future__ import annotations

from pathlib import Path

RESOURCES = "GGML_METAL_PATH_RESOURCES"
PATTERNS = ("*.metal", "*.metallib", "*.h", "kernels/*.metal", "kernels/*.h")


def shader_files(folder: Path) -> list[Path]:
    """Files of a folder that make kernels, in a stable order; none where there is no kernel."""
    found = sorted({file for pattern in PATTERNS for file in folder.glob(pattern)})
    kernels = [file for file in found if file.suffix in (".metal", ".metallib")]
    return found if kernels else []


def resources(directory: str | None) -> dict[str, str]:
    """The variable that makes a build find kernels beside its library, where there are any.

    Args:
        directory: of the library; ``None``: the bindings' own, which have them built in.
    """
    if directory is None or not shader_files(Path(directory)):
        return {}
    return {RESOURCES: str(Path(directory).absolute())}
