"""Child side: the ggml types of a library, by name, and which of them a KV cache can hold."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from pytest_kvquant.engine.child.llama import CFunction

MOST_TYPES = 512
"""Type ids looked at; forks have used ids up to 203."""


class TypeTraits(ctypes.Structure):
    """``struct ggml_type_traits`` of ggml.h, equal in upstream and the forks tried."""

    _fields_ = (
        ("type_name", ctypes.c_void_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    )


def read_types(function: Callable[..., CFunction]) -> dict[str, dict[str, int]]:
    """Types by name, with what is needed to know whether a cache can be of this type.

    The C table has no length that can be asked for, and ids are sparse in some forks: an entry
    counts if its name points into the library itself. Debug builds assert that an id is below
    the number of types, so only two entries are asked for; the others lie behind them.
    """
    traits = function("ggml_get_type_traits", ctypes.POINTER(TypeTraits), ctypes.c_int)
    needs_matrix = function("ggml_quantize_requires_imatrix", ctypes.c_bool, ctypes.c_int)
    first, second = (ctypes.cast(traits(number), ctypes.c_void_p).value for number in (0, 1))
    assert first is not None
    assert second is not None
    own, found = _object_of(first), dict[str, dict[str, int]]()
    for number in range(MOST_TYPES):
        address = first + number * (second - first)
        if _object_of(address) != own:
            break
        entry = TypeTraits.from_address(address)
        if not (0 <= entry.blck_size <= 4096 and 0 <= entry.type_size <= 1 << 16):
            break
        if not entry.type_name or not entry.type_size:
            continue
        if _object_of(entry.type_name) != own:
            break
        name = ctypes.string_at(entry.type_name).decode("ascii", errors="replace")
        quantizable = (
            entry.is_quantized and entry.to_float and entry.from_float_ref
        ) and not needs_matrix(number)
        found[name] = {
            "id": number,
            "block": entry.blck_size,
            "bytes": entry.type_size,
            "cache": bool(name in ("f32", "f16", "bf16") or quantizable),
        }
    return found


def _object_of(address: int | None) -> int | None:
    """Base address of the loaded library that ``address`` lies in (``dladdr``)."""
    info = _DlInfo()
    libc = ctypes.CDLL(None)
    libc.dladdr.argtypes = (ctypes.c_void_p, ctypes.POINTER(_DlInfo))
    if not address or not libc.dladdr(address, ctypes.byref(info)):
        return None
    base: int | None = info.dli_fbase
    return base
