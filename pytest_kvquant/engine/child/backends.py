"""Child side: backends that a build keeps in libraries of their own (``GGML_BACKEND_DL``).

Homebrew, official releases and distributions build llama.cpp so: libggml has no backend until
somebody loads them. They lie beside the library, or in a directory compiled in. The library's own
search would also look in the current directory, where anything may lie: it is run from ``/``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_kvquant.engine.child.llama import CFunction

CPU_DEVICE = 0
"""``enum ggml_backend_dev_type``."""

Function = Callable[..., CFunction]
"""Name, result and arguments to a C function of the library."""


def has_cpu(function: Function) -> bool:
    """Whether a backend that computes on the CPU is registered."""
    pointer = ctypes.c_void_p
    count = function("ggml_backend_dev_count", ctypes.c_size_t)
    get = function("ggml_backend_dev_get", pointer, ctypes.c_size_t)
    kind = function("ggml_backend_dev_type", ctypes.c_int, pointer)
    return any(kind(get(number)) == CPU_DEVICE for number in range(count()))


def load(function: Function, folders: Iterable[Path]) -> bool:
    """Load backends where none that computes on the CPU is there; whether there is one then.

    Args:
        function: finds functions of the library.
        folders: where they may lie, nearest first; then the directory compiled in.
    """
    if has_cpu(function):
        return True
    from_path = function("ggml_backend_load_all_from_path", None, ctypes.c_char_p)
    for folder in dict.fromkeys(folders):
        if any(folder.glob("libggml-*")):
            from_path(os.fsencode(folder))
            if has_cpu(function):
                return True
    with _in("/"):
        from_path(None)
    return has_cpu(function)


@contextmanager
def _in(folder: str) -> Iterator[None]:
    before = None
    with suppress(OSError):  # the folder one is in may be gone
        before = os.getcwd()  # noqa: PTH109  (as it is, links and all)
    os.chdir(folder)
    try:
        yield
    finally:
        if before is not None:
            os.chdir(before)
