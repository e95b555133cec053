"""Build llama.cpp with its RPC backend and server: ``python tests/rpc/build.py`` (minutes).

From the sources of the installed llama-cpp-python, as pip downloads them, so that its bindings fit;
kept in ``build/rpc-<version>``. ``KVQUANT_RPC_BUILD`` names another folder that holds libllama,
the RPC backend and ``ggml-rpc-server`` (``rpc-server``).
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


def build() -> Path:
    """Download, configure, build; the folder of the libraries."""
    place = kept()
    place.mkdir(parents=True, exist_ok=True)
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
            packed.extractall(scratch, filter="data")
        (sources,) = Path(scratch).glob("*/vendor/llama.cpp")
        options = ("-DGGML_RPC=ON", "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TESTS=OFF",
                   "-DLLAMA_CURL=OFF", "-DBUILD_SHARED_LIBS=ON")  # fmt: skip
        made = place / "build"
        subprocess.run(["cmake", "-S", sources, "-B", made, *options], check=True)
        for target in ("llama", SERVERS[0]):
            subprocess.run(["cmake", "--build", made, "--target", target, "--parallel"], check=True)
    return made / "bin"


if __name__ == "__main__":
    print(folder() or build())
