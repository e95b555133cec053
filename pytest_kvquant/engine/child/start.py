"""Child side: the very first things, before NumPy.

The library is loaded before anything that brings a C++ runtime of its own: a llama.cpp that is
linked statically against libstdc++ may crash where another one was there first, with nothing said.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import time
from contextlib import suppress
from pathlib import Path

from pytest_kvquant.engine.child.library import BadLibrary, find_library


def start() -> None:
    """Entry point: ``argv`` ends with the library's directory, a clock, the socket's number."""
    directory, began, line = sys.argv[-3:]
    spans = [("start", int(began), time.perf_counter_ns())]
    _load_library(directory)
    spans.append(("library", spans[-1][2], time.perf_counter_ns()))
    from pytest_kvquant.engine.child.main import main

    spans.append(("start", spans[-1][2], time.perf_counter_ns()))
    main(int(line), spans)


def _load_library(directory: str) -> None:
    """See that libllama is there first; why it cannot be is said when it is asked for."""
    package = importlib.util.find_spec("llama_cpp")
    if directory:
        folder = Path(directory)
    elif package is not None and package.submodule_search_locations:
        folder = Path(next(iter(package.submodule_search_locations))) / "lib"
    else:
        return
    with suppress(BadLibrary, OSError):
        ctypes.CDLL(str(find_library(folder)))
