"""Child side: what the cache really holds, read from a serialized sequence state.

``llama_state_seq_get_data`` writes one section per memory: attention caches (plain, or a base and
a sliding-window one), then recurrent states. Nothing in it says which sections there are, nor
whether cells carry extended positions, nor whether V exists; so every reading that the format
allows is tried, and only one that accounts for all bytes to the last counts. Two such readings,
or none, is "not readable", never a guess.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from pytest_kvquant.engine.census_record import Cache, Census, CensusLayer
from pytest_kvquant.numerics.arrays import I32, U8

MAGIC = b"\xd8\x3c\x14\xaf"
"""Opens the state since the llama.cpp of bindings 0.3.23; the sequence id follows."""

EXTRA_POSITION_BYTES = (0, 8, 12)
"""Per cell: plain positions; x and y (M-RoPE); x, y and the token."""

MOST_STREAMS = 256
MOST_LAYERS = 4096
MOST_SECTIONS = 4


class StateFunctions(Protocol):
    """What of the library's functions serializes a sequence."""

    def llama_state_seq_get_size(self, context: int, sequence: int, /) -> int:
        """Bytes that it takes."""

    def llama_state_seq_get_data(
        self, context: int, out: ctypes._Pointer[ctypes.c_uint8], size: int, sequence: int, /
    ) -> int:
        """Bytes that were written."""


class _Section(NamedTuple):
    cache: Cache | None
    recurrent_bytes: int
    end: int


class _Malformed(Exception):
    """This reading does not fit the bytes."""


def sequence_state(llama: StateFunctions, context: int, sequence: int = 0) -> U8:
    """The serialized state of one sequence, shape ``(bytes,)``.

    Its size grows with the tokens in the cache; types and row sizes show with a single one.

    Args:
        llama: the module ``llama_cpp.llama_cpp``.
        context: pointer to a ``llama_context``.
    """
    buffer = np.empty(int(llama.llama_state_seq_get_size(context, sequence)), np.uint8)
    pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    written = int(llama.llama_state_seq_get_data(context, pointer, len(buffer), sequence))
    return buffer[:written]


def read(
    state: bytes | U8, types: Mapping[str, Mapping[str, int]], *, window: bool = False
) -> Census:
    """Take the census of one sequence.

    Args:
        state: what :func:`sequence_state` returned.
        types: ggml types by name, each with ``id``, ``block`` (elements) and ``bytes``.
        window: whether the model has sliding-window layers; names the second cache.

    Returns:
        A census; with ``problem`` set, and without caches, if the state is not understood.
    """
    view = np.frombuffer(state, np.uint8) if isinstance(state, (bytes, bytearray)) else state
    reader = _Reader(view, {entry["id"]: name for name, entry in types.items()}, types)
    start = 8 if reader.size >= 8 and view[:4].tobytes() == MAGIC else 0
    if reader.size == start:
        return unreadable("the library wrote nothing for this sequence")
    readings = list(islice(reader.readings(start, ()), 2))
    if not readings:
        return unreadable(
            f"no known layout accounts for its {reader.size:,} bytes "
            f"(readings get as far as byte {reader.furthest:,})"
        )
    if len(readings) > 1:
        return unreadable("more than one layout accounts for all its bytes")
    return _census(readings[0], window)


def unreadable(problem: str, bytes_per_token: float | None = None) -> Census:
    """The census of a state that is not understood."""
    return Census((), 0, bytes_per_token, f"not readable: {problem}")


def growth(tokens: tuple[int, int], sizes: tuple[int, int]) -> float:
    """Bytes per token from two sizes of the same sequence's state.

    The cells' bookkeeping is in it: 12 bytes or more per token and cache. Where a window is full,
    its cache no longer counts.

    Args:
        tokens: how many were in the cache, each time.
        sizes: ``llama_state_seq_get_size`` then.

    Raises:
        ValueError: the counts are equal.
    """
    if tokens[0] == tokens[1]:
        raise ValueError("two different token counts are needed")
    return (sizes[1] - sizes[0]) / (tokens[1] - tokens[0])


def positions(state: U8, cache: Cache) -> I32:
    """Position of each cell, in the order of the rows; shape ``(cells,)``."""
    block = state[cache.cells_at : cache.cells_at + cache.cells * cache.cell_bytes]
    cells: I32 = (
        block.view(np.uint8).reshape(cache.cells, cache.cell_bytes)[:, :4].copy().view("<i4")
    )
    return cells.ravel()


def key_rows(state: U8, cache: Cache, layer: CensusLayer) -> U8:
    """K as stored; shape ``(cells, k_row)`` in bytes."""
    return state[layer.k_at : layer.k_at + cache.cells * layer.k_row].reshape(cache.cells, -1)


def value_rows(state: U8, cache: Cache, layer: CensusLayer, *, element: int = 2) -> U8:
    """V as stored, one row per cell whatever the layout; shape ``(cells, v_row)`` in bytes.

    Args:
        element: bytes of an element, for a transposed V.
    """
    block = state[layer.v_at : layer.v_at + cache.cells * layer.v_row]
    if not cache.v_transposed:
        return block.reshape(cache.cells, -1)
    elements = block.reshape(-1, cache.cells, element)
    return np.ascontiguousarray(elements.transpose(1, 0, 2)).reshape(cache.cells, -1)


def _census(sections: tuple[_Section, ...], window: bool) -> Census:
    caches = [section.cache for section in sections if section.cache is not None]
    kinds = ["base", "window" if window else "other", *["other"] * len(caches)]
    named = tuple(cache._replace(kind=kinds[place]) for place, cache in enumerate(caches))
    return Census(
        named,
        sum(section.recurrent_bytes for section in sections),
        sum(cache.bytes_per_token for cache in named),
    )


class _Reader:
    """The grammar of the state. Every step is bounded by the bytes that are left."""

    def __init__(
        self, data: U8, names: Mapping[int, str], types: Mapping[str, Mapping[str, int]]
    ) -> None:
        self.data, self.names, self.types = data, names, types
        self.size = len(data)
        self.furthest = 0

    def readings(self, at: int, before: tuple[_Section, ...]) -> Iterator[tuple[_Section, ...]]:
        """All ways to read sections from ``at`` to the end."""
        if at == self.size:
            yield before
            return
        if len(before) == MOST_SECTIONS:
            return
        for section in self._sections(at, recurrent=all(section.cache for section in before)):
            yield from self.readings(section.end, (*before, section))

    def _sections(self, at: int, *, recurrent: bool) -> Iterator[_Section]:
        """Everything that a section at ``at`` can be; there is at most one recurrent one."""
        seen = set()
        for extra in EXTRA_POSITION_BYTES:
            for with_values in (True, False):
                try:
                    section = self._attention(at, extra, with_values)
                except _Malformed:
                    continue
                if section not in seen:
                    seen.add(section)
                    yield section
        if recurrent:
            with suppress(_Malformed):
                yield from self._recurrent(at)

    def _attention(self, at: int, extra: int, with_values: bool) -> _Section:
        streams, at = self._u32(at)
        self._require(1 <= streams <= MOST_STREAMS)
        found: list[Cache] = []
        for _ in range(streams):
            cells, at = self._u32(at)
            if not cells:
                continue
            self._require(not found)
            cache, at = self._cells(at, cells, extra)
            cache, at = self._layers(at, cache, with_values)
            found.append(cache._replace(streams=streams))
        empty = Cache("base", streams, 0, 0, at, -1, -1, False, ())
        return _Section(found[0] if found else empty, 0, at)

    def _cells(self, at: int, cells: int, extra: int) -> tuple[Cache, int]:
        """Each cell: position, number of sequences (ours alone), extended position, our id."""
        width = 12 + extra
        end = self._skip(at, cells * width)
        block = self.data[at:end].reshape(cells, width)
        numbers = np.ascontiguousarray(block).view("<i4")
        self._require(bool((numbers[:, 1] == 1).all()))
        self._require(bool((numbers[:, -1] == numbers[0, -1]).all() and numbers[0, -1] >= 0))
        where = numbers[:, 0]
        self._require(bool((where >= 0).all()))
        # tokens of one image share a position; without extended positions none may
        self._require(extra > 0 or len(np.unique(where)) == cells)
        first, last = int(where.min()), int(where.max())
        return Cache("base", 1, cells, width, at, first, last, False, ()), end

    def _layers(self, at: int, cache: Cache, with_values: bool) -> tuple[Cache, int]:
        transposed, at = self._u32(at)
        count, at = self._u32(at)
        self._require(transposed <= 1 and count <= MOST_LAYERS)
        layers = []
        for _ in range(count):
            (name, row, first), at = self._rows(at, cache.cells)
            layers.append(CensusLayer(name, None, row, 0, first, 0))
        for number in range(count if with_values else 0):
            read_values = self._columns if transposed else self._rows
            (name, row, first), at = read_values(at, cache.cells)
            layers[number] = layers[number]._replace(v_type=name, v_row=row, v_at=first)
        return cache._replace(v_transposed=bool(transposed), layers=tuple(layers)), at

    def _rows(self, at: int, cells: int) -> tuple[tuple[str, int, int], int]:
        """A type, the bytes of a row, the rows."""
        name, at = self._type(at)
        row, at = self._u64(at)
        self._require(row > 0 and row % self.types[name]["bytes"] == 0)
        return (name, row, at), self._skip(at, cells * row)

    def _columns(self, at: int, cells: int) -> tuple[tuple[str, int, int], int]:
        """A type, the bytes of an element, elements per cell, the elements."""
        name, at = self._type(at)
        element, at = self._u32(at)
        count, at = self._u32(at)
        self._require(count > 0 and element == self.types[name]["bytes"])
        row = element * count
        return (name, row, at), self._skip(at, cells * row)

    def _recurrent(self, at: int) -> Iterator[_Section]:
        """Cells without sequence ids, then R of some layers and S of as many.

        How many layers have a state is not written, so the section may end after any even number
        of records.
        """
        start = at
        cells, at = self._u32(at)
        end = self._skip(at, cells * 8)
        numbers = np.ascontiguousarray(self.data[at:end].reshape(cells, 8)).view("<i4")
        self._require(bool((numbers[:, 1] == 0).all()))
        transposed, at = self._u32(end)
        count, at = self._u32(at)
        self._require(transposed == 0 and 1 <= count <= MOST_LAYERS)
        for record in range(2 * count):
            _, at = self._type(at)
            row, at = self._u64(at)
            at = self._skip(at, cells * row)
            if record % 2:
                yield _Section(None, at - start, at)

    def _type(self, at: int) -> tuple[str, int]:
        number, at = self._u32(at)
        self._require(number in self.names)
        return self.names[number], at

    def _u32(self, at: int) -> tuple[int, int]:
        end = self._skip(at, 4)
        return int.from_bytes(self.data[at:end].tobytes(), "little"), end

    def _u64(self, at: int) -> tuple[int, int]:
        end = self._skip(at, 8)
        return int.from_bytes(self.data[at:end].tobytes(), "little"), end

    def _skip(self, at: int, size: int) -> int:
        self.furthest = max(self.furthest, at)
        self._require(at + size <= self.size)
        return at + size

    @staticmethod
    def _require(condition: bool) -> None:
        if not condition:
            raise _Malformed
