"""Build llama.cpp with its RPC backend and server: ``python tests/rpc/build.py`` (minutes).

From the sources of the installed llama-cpp-python, as pip downloads them, so that its bindings fit,
or from the llama.cpp tree that ``KVQUANT_GGML_SOURCE`` names; kept in ``build/rpc-<version>``.
``KVQUANT_RPC_BUILD`` names another folder that holds libllama, the RPC backend and
``ggml-rpc-server`` (``rpc-server``).
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVERS = ("ggml-rpc-server", "rpc-server")


def kept() -> Path:
    """Where the build of the installed release is kept."""
    return ROOT / "build" / f"rpc-{importlib.metadata.version('llama-cpp-python')}"


def folder(shell: Mapping[str, str] = os.environ) -> Path | None:
    """The libraries and the server; ``None``: there are none."""
    named = shell.get("KVQUANT_RPC_BUILD")
    place = Path(named) if named else kept() / "build" / "bin"
    return place.resolve() if server(place) else None


def server(place: Path) -> Path | None:
    """The server's program in a folder."""
    return next((place / name for name in SERVERS if (place / name).is_file()), None)


def build(shell: Mapping[str, str] = os.environ) -> Path:
    """Fetch the sources if none are named, configure, build; the folder of the libraries."""
    made = kept() / "build"
    made.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        named = shell.get("KVQUANT_GGML_SOURCE")
        sources = Path(named).resolve() if named else fetched(Path(scratch))
        options = ("-DGGML_RPC=ON", "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TESTS=OFF",
                   "-DLLAMA_CURL=OFF", "-DBUILD_SHARED_LIBS=ON")  # fmt: skip
        subprocess.run(["cmake", "-S", sources, "-B", made, *options], check=True)
        subprocess.run(compiling(made, shell), check=True)
    return made / "bin"


def fetched(scratch: Path) -> Path:
    """The llama.cpp tree of the installed release, downloaded."""
    release = importlib.metadata.version("llama-cpp-python")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--no-binary", ":all:", "--dest", scratch, f"llama-cpp-python=={release}"),
        ],
        check=True,
    )
    (archive,) = scratch.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    (sources,) = scratch.glob("*/vendor/llama.cpp")
    return sources


def compiling(made: Path, shell: Mapping[str, str]) -> list[str]:
    """The command; as many compilers as there are cores: with no number make starts them all."""
    jobs = shell.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
    return ["cmake", "--build", str(made), "--parallel", jobs, "--target", "llama", SERVERS[0]]


if __name__ == "__main__":
    print(folder() or build())
