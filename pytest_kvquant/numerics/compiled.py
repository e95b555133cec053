"""Where compiled loops are kept: in the user's cache, whatever environment they were compiled in.

numba keeps them beside the source, or by its path: a new environment compiles again, for seconds.
Here they stand under a hash of the sources and of the versions that compiled them, so that equal
ones share them: what one version of NumPy has pickled another cannot read. Where that folder
cannot be written, numba's own places are tried; where those cannot either, nothing is kept, and
nothing fails.
"""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Protocol, TypeVar

import llvmlite
import numba
import numpy as np
import platformdirs
from numba.core import caching

FOLDER = "kernels"


class Dispatcher(Protocol):
    """What is used of a function that numba compiles."""

    py_func: FunctionType
    _cache: object


D = TypeVar("D", bound=Dispatcher)


class ByContent(caching._CacheLocator):  # type: ignore[misc]
    """A place for the compiled forms of a function, by the content of the files in its folder."""

    def __init__(self, py_func: FunctionType, py_file: str) -> None:
        self._line = py_func.__code__.co_firstlineno
        sources = sorted(Path(py_file).parent.glob("*.py"))
        versions = sys.version, np.__version__, numba.__version__, llvmlite.__version__
        digest = hashlib.sha256(repr(versions).encode())
        for source in sources:  # constants of other files are compiled in
            digest.update(source.read_bytes())
        self._stamp = digest.hexdigest()[:24]

    def get_cache_path(self) -> str:
        """The folder."""
        root = Path(platformdirs.user_cache_dir("pytest-kvquant"))
        return str(root / FOLDER / self._stamp)

    def get_source_stamp(self) -> str:
        """What the compiled form was made from."""
        return self._stamp

    def get_disambiguator(self) -> str:
        """Tells functions of one name in one file apart."""
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: FunctionType, py_file: str) -> ByContent | None:
        """The place of a function; ``None`` where it cannot be written."""
        try:
            place = cls(py_func, py_file)
            place.ensure_cache_path()
        except OSError:
            return None
        return place


class _Compiled(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (ByContent, *caching.CompileResultCacheImpl._locator_classes)


class _Kept(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _Compiled

    def save_overload(self, sig: object, data: object) -> None:
        """Keep a compiled form; where the disk is full it is compiled again the next time."""
        with suppress(OSError):
            super().save_overload(sig, data)


def cached(dispatcher: D) -> D:
    """A compiled function that finds its compiled forms again, as far as a place can be written."""
    with suppress(RuntimeError):  # no place can be written: each process compiles for itself
        dispatcher._cache = _Kept(dispatcher.py_func)
    return dispatcher
