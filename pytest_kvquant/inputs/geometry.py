"""How large a cache has to be: rows and bytes per token from the model's header, and whether the
census agrees. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import REFERENCE, Pair

if TYPE_CHECKING:
    pass


Types = Mapping[str, Mapping[str, Any]]
"""ggml types by name, each with ``block`` (elements) and ``bytes`` (of a block)."""

CELLS = 256
"""llama.cpp rounds the cells of a cache up to a multiple of this."""


class LayerShape(NamedTuple):
    """A layer with a KV cache."""

    number: int
    """Which layer of the model; -1 if that is not known."""
    heads: int
    windowed: bool = False


class Expectation(NamedTuple):
    """The cache of a pair, as the model's header and ggml's block sizes would have it."""

    pair: Pair
    layers: tuple[LayerShape, ...]
    head_dim_k: int
    head_dim_v: int
    bytes_per_token: int
    """While every layer holds every token: window layers stop growing at their window."""
    windowed_bytes_per_token: int
    """Of these, in window layers, as far as they are known."""
    compression: float
    """Bytes per token of f16/f16 over those of the pair."""


def row_bytes(entry: Mapping[str, Any], heads: int, dim: int) -> int:
    """Bytes of a cache row: whole blocks, and where they do not divide the head, padded heads."""
    block = int(entry["block"])
    elements = heads * dim
    if elements % block:
        elements = heads * -(-dim // block) * block
    return elements // block * int(entry["bytes"])


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


def need(model: Model, pair: Pair, types: Types, *, ubatch: int) -> Need:
    """What the cache of ``pair`` takes in a context of one sequence.

    Args:
        ubatch: tokens of a physical batch, which a window's cache has room for beside the window.

    Raises:
        KeyError: the library has no such type.
    """
    expected = expect(model, pair, types)
    cells = -(-(model.window + ubatch) // CELLS) * CELLS if model.window else 0
    windowed = None if model.windowed is None else expected.windowed_bytes_per_token
    return Need(expected.bytes_per_token, windowed, cells)


def expect(model: Model, pair: Pair, types: Types) -> Expectation:
    """What the cache of ``pair`` should be.

    Raises:
        KeyError: the library has no such type.
    """
    flags = model.windowed or [False] * model.n_layer
    layers = tuple(
        LayerShape(number, heads, bool(flags[number]))
        for number, heads in enumerate(model.n_head_kv)
        if heads
    )

    def per_token(of: Pair, among: Iterable[LayerShape]) -> int:
        return sum(
            row_bytes(types[of.k], layer.heads, model.head_dim_k)
            + row_bytes(types[of.v], layer.heads, model.head_dim_v)
            for layer in among
        )

    total = per_token(pair, layers)
    return Expectation(
        pair,
        layers,
        model.head_dim_k,
        model.head_dim_v,
        bytes_per_token=total,
        windowed_bytes_per_token=per_token(pair, (one for one in layers if one.windowed)),
        compression=per_token(REFERENCE, layers) / total if total else 1.0,
    )
