"""Build the simulated Metal backend against the headers of a library's own ggml.

The backend implements ``ggml-backend-impl.h``, which no wheel of llama-cpp-python installs (its
``site-packages/include`` has only the public headers). It comes from

1. ``KVQUANT_GGML_SOURCE``: a llama.cpp tree, or its ``ggml`` folder, of the build in use;
2. ``build/ggml-<version of llama-cpp-python>``, which ``make metal-sim`` fills from the source
   distribution of that very release, as pip downloads it.

Anywhere else nothing is built, and the tests that need it are skipped with the reason.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("sim_metal.c")
ROOT = Path(__file__).parents[2]
WANTED = (
    "ggml/include/",
    "ggml/src/ggml-backend-impl.h",
    "ggml/src/ggml-impl.h",
    "ggml/src/ggml-metal/ggml-metal-device.m",
)
"""What of a source distribution is kept."""


class CannotBuild(Exception):
    """There is no compiler, or there are no headers; the message says which."""


def downloaded() -> Path:
    """Where the headers of the installed release are kept."""
    return ROOT / "build" / f"ggml-{importlib.metadata.version('llama-cpp-python')}"


def ggml_folder(shell: Mapping[str, str]) -> Path:
    """The ``ggml`` folder whose headers are used.

    Raises:
        CannotBuild: there is none.
    """
    named = shell.get("KVQUANT_GGML_SOURCE")
    for folder in (Path(named), Path(named) / "ggml") if named else (downloaded() / "ggml",):
        if (folder / "src" / "ggml-backend-impl.h").is_file():
            return folder.resolve()
    raise CannotBuild(
        f"KVQUANT_GGML_SOURCE={named} has no src/ggml-backend-impl.h"
        if named
        else "no ggml-backend-impl.h: `make metal-sim` fetches it, KVQUANT_GGML_SOURCE names a tree"
    )


def library_folder(shell: Mapping[str, str]) -> Path:
    """The folder of the llama and ggml libraries that the backend is loaded into."""
    if named := shell.get("KVQUANT_METAL_SIM_LIB"):
        return Path(named).resolve()
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise CannotBuild("llama-cpp-python is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "lib"


def build(folder: Path, shell: Mapping[str, str] = os.environ) -> Path:
    """The backend as a loadable library in ``folder``.

    Raises:
        CannotBuild: with the reason, for a skipped test.
        RuntimeError: the headers and this backend do not fit: that is no reason to skip.
    """
    compiler = shutil.which(shell.get("CC", "cc"))
    if compiler is None:
        raise CannotBuild("there is no C compiler")
    headers, libraries = ggml_folder(shell), library_folder(shell)
    suffix = "dylib" if sys.platform == "darwin" else "so"
    made = folder / f"libsim-metal.{suffix}"
    done = subprocess.run(
        [
            *(compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"),
            *("-shared", "-fPIC"),
            *("-I", str(headers / "include"), "-I", str(headers / "src"), str(SOURCE)),
            *("-o", str(made), "-L", str(libraries), "-lggml-base", "-lggml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{compiler} does not build the simulated backend:\n{done.stderr}")
    return made


def fetch(*, whole: bool = False) -> Path:
    """Download the source distribution of the installed release; keep the headers.

    Args:
        whole: keep the sources of ggml too.
    """
    folder = downloaded()
    wanted = ("ggml/",) if whole else WANTED
    if (folder / "ggml" / "src" / ("ggml.c" if whole else "ggml-backend-impl.h")).is_file():
        return folder
    release = importlib.metadata.version("llama-cpp-python")
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--no-binary", ":all:", "--dest", scratch, f"llama-cpp-python=={release}"),
            ],
            check=True,
        )
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            for member in packed:
                _, found, inner = member.name.partition("/vendor/llama.cpp/")
                if found and member.isfile() and inner.startswith(wanted):
                    member.name = inner
                    packed.extract(member, folder, filter="data")
    return folder


if __name__ == "__main__":
    print(f"headers of ggml: {fetch()}")
