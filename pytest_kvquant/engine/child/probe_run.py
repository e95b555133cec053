"""Child side: one pass over the probe's tokens, and the rows that a cache then holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine import census, census_record
from pytest_kvquant.engine.child.codec import Codec
from pytest_kvquant.engine.child.context import Context
from pytest_kvquant.engine.child.probe_kl import LOGIT_ROWS
from pytest_kvquant.numerics.arrays import F32, I32, U8


class Unreadable(Exception):
    """The cache's state is not understood, so nothing can be said of its rows."""


class Run(NamedTuple):
    """One pass over the probe's tokens: a prompt, then single tokens."""

    state: U8
    logits: F32
    """Of the last tokens of the prompt, then of the last single ones; shape ``(n, vocabulary)``."""

    def save(self, folder: Path, singles: int) -> None:
        """Store it, for the cells that are compared with it."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"state-{singles}.npy", self.state)
        np.save(folder / f"logits-{singles}.npy", self.logits)

    @classmethod
    def load(cls, folder: Path, singles: int) -> Run:
        """Map one that was stored; its pages are read where they are looked at."""
        state = np.load(folder / f"state-{singles}.npy", mmap_mode="r")
        return cls(state, np.load(folder / f"logits-{singles}.npy", mmap_mode="r"))


class StoredRows(NamedTuple):
    """One side of one layer by one path, read back where it can be."""

    stored: U8
    source: F32
    """What ``f16/f16`` stores; heads padded as the cell pads them."""
    positions: I32


def run(context: Context, tokens: I32, singles: int) -> Run:
    """Decode the tokens from an empty cache: a prompt, then the last ``singles`` one at a time."""
    context.clear()
    prompt = len(tokens) - singles
    logits = []
    for start in range(0, prompt, context.batch):
        stop = min(start + context.batch, prompt)
        logits.append(_decode(context, tokens, start, stop, stop - max(start, prompt - LOGIT_ROWS)))
    for start in range(prompt, len(tokens)):
        wanted = int(start >= len(tokens) - LOGIT_ROWS)
        logits.append(_decode(context, tokens, start, start + 1, wanted))
    return Run(census.sequence_state(context.llama, context.pointer), np.concatenate(logits))


def picks(
    cell: Run, reference: Run, types: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[int, Pick]]:
    """The caches of a cell beside those of ``f16/f16``, by number.

    Raises:
        Unreadable: a state is not understood, or the two do not describe the same layers.
    """
    found, meant = (census.read(state, types) for state in (cell.state, reference.state))
    for each in (found, meant):
        if each.problem is not None:
            raise Unreadable(each.problem)
    if [len(cache.layers) for cache in found.caches] != [len(one.layers) for one in meant.caches]:
        raise Unreadable("the cell's cache has other layers than that of f16/f16")
    for number, (ours, theirs) in enumerate(zip(found.caches, meant.caches, strict=True)):
        if ours.cells and theirs.cells:
            alone = len(found.caches) == 1
            yield number, Pick(cell.state, reference.state, ours, theirs, alone)


class Pick(NamedTuple):
    """Rows of both caches at the positions that both have."""

    state: U8
    reference: U8
    ours: census_record.Cache
    theirs: census_record.Cache
    alone: bool
    """Whether it is the only cache."""

    def rows(self, place: int, side: str, width: int, codec: Codec) -> StoredRows:
        """What one side of one layer holds, and what f16 holds there."""
        at, other = (
            census.positions(state, cache)
            for state, cache in ((self.state, self.ours), (self.reference, self.theirs))
        )
        shared, mine, yours = np.intersect1d(at, other, return_indices=True)
        read = census.key_rows if side == "K" else census.value_rows
        stored = read(self.state, self.ours, self.ours.layers[place])[mine]
        source = read(self.reference, self.theirs, self.theirs.layers[place])[yours]
        halves = np.ascontiguousarray(source).view(np.float16).astype(np.float32)
        return StoredRows(stored, padded(halves, width, codec.elements(stored.shape[1])), shared)


def padded(source: F32, width: int, elements: int) -> F32:
    """Heads of ``width`` elements filled up with zeros, to rows of so many ``elements``.

    Raises:
        Unreadable: such rows cannot hold such heads.
    """
    rows, size = source.shape
    if size == elements:
        return source
    heads = size // width
    if size % width or elements < size or elements % heads:
        raise Unreadable(f"a row of {elements} elements cannot hold heads of {width}")
    room = elements // heads - width
    return np.pad(source.reshape(rows, heads, width), ((0, 0), (0, 0), (0, room))).reshape(rows, -1)


def type_of(layer: census_record.CensusLayer, side: str) -> str | None:
    """The type of one side of a layer, where it has that side."""
    return layer.k_type if side == "K" else layer.v_type


def places(pick: Pick, side: str) -> list[int]:
    """Numbers of the layers that have a side."""
    return [n for n, layer in enumerate(pick.ours.layers) if type_of(layer, side) is not None]


def _decode(context: Context, tokens: I32, start: int, stop: int, wanted: int) -> F32:
    """Decode some tokens; logits of the last ``wanted`` ones."""
    span = np.arange(start, stop, dtype=np.int32)
    outputs = np.zeros(len(span), np.int8)
    if wanted > 0:
        outputs[-wanted:] = 1
    return context.decode(tokens[start:stop], span, np.zeros_like(span), outputs).copy()
