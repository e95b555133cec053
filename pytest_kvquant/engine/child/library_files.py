"""Child side: which files of a build this process uses, and their hash."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pytest_kvquant.engine.shaders import RESOURCES, shader_files


class Hashed:
    """Files that are hashed in a thread: that takes as long as a device takes to start.

    Args:
        files: in the order in which they are hashed.
    """

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self._thread = ThreadPoolExecutor(1)
        self._digest = self._thread.submit(self._read)

    def _read(self) -> str:
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def digest(self) -> str:
        """16 hex digits, once all are read; the thread has ended then.

        Raises:
            OSError: one cannot be read.
        """
        self._thread.shutdown()
        return self._digest.result()


def files_in_use(library: Path) -> list[Path]:
    """Libraries that are loaded, and shaders that a device compiles."""
    folder = os.environ.get(RESOURCES)
    shaders = shader_files(Path(folder)) if folder else []
    return loaded_files(library.resolve().parent) + shaders


def loaded_files(directory: Path) -> list[Path]:
    """The llama and ggml libraries that this process has mapped, in a stable order.

    Linux and macOS tell; elsewhere those that lie in ``directory``.
    """
    maps = Path("/proc/self/maps")
    if maps.exists():
        mapped = [
            line.split(maxsplit=5)[5] for line in maps.read_text().splitlines() if "/" in line
        ]
    elif sys.platform == "darwin":
        mapped = _dyld_images()
    else:
        mapped = [str(path.resolve()) for path in directory.iterdir()]
    wanted = re.compile(r"lib(llama|ggml)[^/]*\.(so|dylib)")
    return sorted({Path(path) for path in mapped if wanted.match(Path(path).name)})


def _dyld_images() -> list[str]:
    """Paths of all images of this process, as macOS's dyld tells them (``mach-o/dyld.h``)."""
    dyld = ctypes.CDLL(None)
    count = dyld._dyld_image_count
    name_of = dyld._dyld_get_image_name
    count.restype, name_of.restype, name_of.argtypes = (
        ctypes.c_uint32,
        ctypes.c_char_p,
        (ctypes.c_uint32,),
    )
    return [name.decode() for index in range(count()) if (name := name_of(index))]
