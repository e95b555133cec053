"""How large a cache has to be: rows and bytes per token, layer by layer and cache by cache.

The layers come from the model's header, or from what f16's own cache shows where the header is not
understood. Pure arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from pytest_kvquant.inputs.caches import CachedLayer, CacheShape
from pytest_kvquant.inputs.model import Model, simple_caches
from pytest_kvquant.matrix import REFERENCE, Pair

Types = Mapping[str, Mapping[str, int]]
"""ggml types by name, each with ``block`` (elements) and ``bytes`` (of a block)."""

F16: Types = {"f16": {"block": 1, "bytes": 2}}
"""The one type whose size is the same in every build."""

CELLS = 256
"""llama.cpp rounds the cells of a cache up to a multiple of this."""


Source = Literal["header", "f16"]
"""Where a geometry comes from: the model's header, or the cache of f16/f16 of this very build."""


class Expectation(NamedTuple):
    """The cache of a pair, as the geometry and ggml's block sizes would have it."""

    pair: Pair
    caches: tuple[CacheShape, ...]
    bytes_per_token: int
    """While every layer holds every token: window layers stop growing at their window."""
    windowed_bytes_per_token: int
    """Of these, in window layers, as far as they are known."""
    compression: float
    """Bytes per token of f16/f16 over those of the pair."""
    source: Source = "header"
    described: int | None = None
    """Bytes per token by the header, where it was not believed."""

    @property
    def layers(self) -> tuple[CachedLayer, ...]:
        """Of all caches, in their order."""
        return tuple(layer for shape in self.caches for layer in shape.layers)


def row_bytes(entry: Mapping[str, int], heads: int, dim: int) -> int:
    """Bytes of a cache row: each head is padded to whole blocks of its type.

    Args:
        heads: 0: not known, ``dim`` is the whole row.
    """
    blocks = -(-dim // entry["block"])
    return (heads or 1) * blocks * entry["bytes"]


class Need(NamedTuple):
    """Bytes that the cache of one sequence takes, by its length in tokens."""

    per_token: int
    """While every layer holds every token."""
    windowed: int | None
    """Of these, in layers that hold ``cells`` tokens at most; ``None``: not known, up to all."""
    cells: int
    """llama.cpp keeps a window and a batch on top of it."""

    def least(self, tokens: int) -> int:
        """Bytes that ``tokens`` take at least."""
        windowed = self._windowed_at_most
        return (self.per_token - windowed) * tokens + windowed * min(tokens, self.cells)

    def most_tokens(self, room: float) -> float:
        """No more fit into ``room`` bytes, whatever is not known; may be infinite."""
        return self._fitting(room, self._windowed_at_most)

    def predicted_tokens(self, room: float) -> int:
        """Tokens that should fit into ``room`` bytes; 0 also where any number does."""
        tokens = self._fitting(room, self.windowed or 0)
        return int(tokens) if tokens < math.inf else 0

    @property
    def _windowed_at_most(self) -> int:
        return self.per_token if self.windowed is None else self.windowed

    def _fitting(self, room: float, windowed: int) -> float:
        growing = self.per_token - windowed
        if room < self.per_token * self.cells or not windowed:
            return max(0, room // self.per_token) if self.per_token else math.inf
        return (room - windowed * self.cells) // growing if growing else math.inf


def need(model: Model, pair: Pair, types: Types, *, ubatch: int, swa_full: bool = False) -> Need:
    """What the cache of ``pair`` takes in a context of one sequence.

    Args:
        ubatch: tokens of a physical batch, which a window's cache has room for beside the window.
        swa_full: whether layers with a window hold every token all the same.

    Raises:
        KeyError: the library has no such type.
    """
    expected = expect(model, pair, types)
    if swa_full:
        return Need(expected.bytes_per_token, 0, 0)
    cells = -(-(model.window + ubatch) // CELLS) * CELLS if model.window else 0
    windowed = None if model.windowed is None else expected.windowed_bytes_per_token
    return Need(expected.bytes_per_token, windowed, cells)


def expect(model: Model, pair: Pair, types: Types) -> Expectation:
    """What the cache of ``pair`` should be.

    Raises:
        KeyError: the library has no such type.
    """
    return expect_of(model.caches or simple_caches(model), pair, types)


def expect_of(caches: tuple[CacheShape, ...], pair: Pair, types: Types) -> Expectation:
    """What the cache of ``pair`` should be, with the layers of ``caches``.

    Raises:
        KeyError: the library has no such type.
    """
    layers = [layer for shape in caches for layer in shape.layers]
    windowed = [layer for shape in caches if shape.kind == "window" for layer in shape.layers]
    total = _per_token(pair, layers, types)
    return Expectation(
        pair,
        caches,
        bytes_per_token=total,
        windowed_bytes_per_token=_per_token(pair, windowed, types),
        compression=_per_token(REFERENCE, layers, types) / total if total else 1.0,
    )


def _per_token(pair: Pair, layers: Iterable[CachedLayer], types: Types) -> int:
    return sum(
        row_bytes(types[pair.k], layer.heads, layer.dim_k)
        + (row_bytes(types[pair.v], layer.heads, layer.dim_v) if layer.dim_v else 0)
        for layer in layers
    )
