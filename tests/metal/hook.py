"""A worker hook: put the simulated Metal backend into the library as soon as it is loaded."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from pytest_kvquant.engine.child.library import LoadedLibrary

_made: Any = LoadedLibrary.__init__


def _with_metal(self: Any, *arguments: Any, **named: Any) -> None:
    _made(self, *arguments, **named)
    load = self.function("ggml_backend_load", ctypes.c_void_p, ctypes.c_char_p)
    if not load(os.environb[b"SIM_METAL_LIBRARY"]):
        raise RuntimeError("the simulated Metal backend does not load")


LoadedLibrary.__init__ = _with_metal  # type: ignore[method-assign]
