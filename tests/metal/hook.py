"""A worker hook: put the simulated Metal backend into the library as soon as it is loaded."""

from __future__ import annotations

import ctypes
import os
from typing import Any

Library: Any = type(worker).on_library.__globals__["Library"]  # type: ignore[name-defined] # noqa: F821
_made = Library.__init__


def _with_metal(self: Any, *arguments: Any) -> None:
    _made(self, *arguments)
    load = self.function("ggml_backend_load", ctypes.c_void_p, ctypes.c_char_p)
    if not load(os.environb[b"SIM_METAL_LIBRARY"]):
        raise RuntimeError("the simulated Metal backend does not load")


Library.__init__ = _with_metal
