"""What a cache was found to hold, by layer."""

from __future__ import annotations

from typing import NamedTuple


class CensusLayer(NamedTuple):
    """K and V of one layer of a cache; layers come in the order of the model's.

    Row bytes are per cell. ``*_at`` is the offset of the first row in the state.
    """

    k_type: str
    v_type: str | None
    """``None`` where the architecture stores no V (latent attention)."""
    k_row: int
    v_row: int
    k_at: int
    v_at: int


class Cache(NamedTuple):
    """One attention cache, as far as it holds the sequence."""

    kind: str
    """``base``; ``window`` for sliding-window layers; ``other`` (an indexer's cache)."""
    streams: int
    """1 for a unified cache; otherwise one stream per sequence that the context can hold."""
    cells: int
    cell_bytes: int
    """Bytes of bookkeeping per cell: position, sequence ids, extended position."""
    cells_at: int
    """Offset of the first cell's bookkeeping."""
    first: int
    last: int
    """Smallest and largest position; -1 in an empty cache."""
    v_transposed: bool
    """V lies element by element, each with all its cells (no flash attention)."""
    layers: tuple[CensusLayer, ...]

    @property
    def bytes_per_token(self) -> int:
        """K and V of all its layers."""
        return sum(layer.k_row + layer.v_row for layer in self.layers)


class Census(NamedTuple):
    """What a sequence state says about the memory behind it."""

    caches: tuple[Cache, ...]
    recurrent_bytes: int
    """Bytes of recurrent state: they do not grow with the tokens."""
    bytes_per_token: float | None
    """Of all attention caches; window caches stop growing at their window. ``None``: unknown."""
    problem: str | None = None
    """Why the state is not readable, in words; then there are no caches."""
