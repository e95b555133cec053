"""Child side: a ggml type's own reference quantizer, and its rows read back as numbers.

Some builds rotate K and V before they quantize (a Hadamard matrix per head, in the graph), some
types rotate inside their quantizer. The first kind is a :func:`rotate` of the rows handed in; the
second shows in what :meth:`Codec.floats` gives back, and :meth:`Codec.basis` finds it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.child.cache_types import TypeTraits
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.numerics.arrays import F32, U8

_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64
_CONVERT = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _COUNT)

TRIALS = 2048
"""Random heads from which a quantizer's own basis is estimated."""


class Basis(NamedTuple):
    """In which coordinates a type's numbers come back, and how coarse it is there."""

    matrix: F32 | None
    """Rows handed in times this are what comes back, per head; ``None``: they come back as is."""
    rounding: float
    """NMSE of a normally distributed head after one pass through the quantizer."""


class Codec:
    """One type of the library.

    Raises:
        BadLibrary: the library has no such functions.
    """

    def __init__(self, library: LoadedLibrary, name: str) -> None:
        entry = library.types[name]
        self.name = name
        self.block, self.bytes = entry["block"], entry["bytes"]
        library.function("ggml_quantize_init", None, ctypes.c_int)(entry["id"])
        traits = library.function("ggml_get_type_traits", ctypes.POINTER(TypeTraits), ctypes.c_int)(
            entry["id"]
        ).contents
        self._bases: dict[int, Basis] = {}
        self._encode = _CONVERT(traits.from_float_ref) if traits.from_float_ref else None
        self._decode = _CONVERT(traits.to_float) if traits.to_float else None

    def elements(self, row_bytes: int) -> int:
        """How many values a row of so many bytes holds."""
        return row_bytes // self.bytes * self.block

    def quantize(self, values: F32) -> U8:
        """Rows as the reference quantizer writes them.

        Args:
            values: shape ``(rows, elements)``, elements a multiple of the type's block.

        Returns:
            Shape ``(rows, row bytes)``.
        """
        source = np.ascontiguousarray(values, np.float32)
        rows, elements = source.shape
        if self._encode is None:
            return source.view(np.uint8)
        stored = np.empty((rows, elements // self.block * self.bytes), np.uint8)
        self._encode(source.ctypes.data, stored.ctypes.data, source.size)
        return stored

    def floats(self, stored: U8) -> F32:
        """Stored rows as numbers, by the type's own ``to_float``; shape ``(rows, elements)``."""
        stored = np.ascontiguousarray(stored)
        if self._decode is None:
            return stored.view(np.float32)
        values = np.empty((len(stored), self.elements(stored.shape[1])), np.float32)
        self._decode(stored.ctypes.data, values.ctypes.data, values.size)
        return values

    def through(self, values: F32) -> F32:
        """What comes back of rows that the reference quantizer wrote."""
        return self.floats(self.quantize(values))

    def basis(self, width: int) -> Basis:
        """The coordinates in which heads of ``width`` elements come back.

        Found by an orthogonal Procrustes fit to random heads; a fit whose entries all have the
        size of a Hadamard matrix's is taken for one, exactly.
        """
        if width not in self._bases:
            self._bases[width] = self._find_basis(width)
        return self._bases[width]

    def _find_basis(self, width: int) -> Basis:
        values = np.random.default_rng(0).standard_normal((TRIALS, width), np.float32)
        few = values[: TRIALS // 8]
        plain = nmse(self.through(few), few)
        if plain < 1:
            return Basis(None, plain)
        back = self.through(values)
        left, _, right = np.linalg.svd(values.T @ back)
        matrix = left @ right
        level = np.abs(matrix[matrix**2 > 0.25 / width])
        size = float(np.median(level))
        snapped = np.where(matrix**2 > 0.25 * size**2, np.sign(matrix) * size, 0)
        if np.allclose(snapped @ snapped.T, np.eye(width), atol=1e-2):
            matrix = snapped / np.linalg.norm(snapped, axis=1, keepdims=True)
        matrix = np.ascontiguousarray(matrix, np.float32)
        return Basis(matrix, nmse(back, values @ matrix))


class Codecs:
    """The codecs of a library, each made once."""

    def __init__(self, library: LoadedLibrary) -> None:
        self._library = library
        self._made: dict[str, Codec] = {}

    def __getitem__(self, name: str) -> Codec:
        if name not in self._made:
            self._made[name] = Codec(self._library, name)
        return self._made[name]

    def alike(self, codec: Codec) -> Iterator[Codec]:
        """Other cache types whose rows are as long: one may stand in another's place unseen."""
        for name, entry in self._library.types.items():
            same = (entry["block"], entry["bytes"]) == (codec.block, codec.bytes)
            if entry["cache"] and same and name != codec.name:
                yield self[name]


def rotate(values: F32, size: int) -> F32:
    """Groups of ``size`` elements times the orthonormal Hadamard matrix of llama.cpp (Sylvester's).

    Its own inverse; a size of 1 leaves all as is.
    """
    if size <= 1:
        return values
    return (values.reshape(-1, size) @ hadamard(size)).reshape(values.shape)


@functools.cache
def hadamard(size: int) -> F32:
    """The matrix, shape ``(size, size)``, symmetric and orthonormal; a power of two."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.sqrt(size), np.float32)


def nmse(values: F32, expected: F32) -> float:
    """Squared error over the squared size of what was expected; infinite where that is zero."""
    error = float(np.square(values - expected, dtype=np.float64).sum())
    size = float(np.square(expected, dtype=np.float64).sum())
    return error / size if size else (0.0 if error == 0 else float("inf"))
