"""``kvquant --version``: the plugin, the bindings, and the library that they bring."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_kvquant import __version__


def versions() -> str:
    """A line each; the library is found without being loaded."""
    try:
        bindings = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        bindings = "not installed"
    return (
        f"pytest-kvquant    {__version__} (Python {platform.python_version()})\n"
        f"llama-cpp-python  {bindings}\n"
        f"library           {_library()}\n"
    )


def _library() -> str:
    import os

    if chosen := os.environ.get("LLAMA_CPP_LIB_PATH"):
        return f"{chosen} (LLAMA_CPP_LIB_PATH)"
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        return "none"
    folder = Path(found.origin).parent / "lib"
    libraries = sorted(folder.glob("libllama.*"))
    if not libraries:
        return "none beside the bindings; --kv-lib names one"
    return f"{libraries[0]}; kvquant doctor says its build"


class Versions(argparse.Action):
    """Prints the versions and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print them."""
        sys.stdout.write(versions())
        parser.exit(0)
