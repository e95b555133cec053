"""Child side: the cache asked what it holds, against what the type's reference quantizer makes.

The first layer's K and V do not depend on the cache types. So the rows that a cell stores there
must be the rows of ``f16/f16``, written by the reference quantizer; later layers show how the
error of the attention propagation. Rows of prompts (many tokens at once) and rows of single tokens
come from different kernels and are compared apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine import census
from pytest_kvquant.engine.child import pattern
from pytest_kvquant.engine.child.codec import Codec, Codecs, nmse, rotate
from pytest_kvquant.engine.child.context import Context

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

SIDES = ("K", "V")
PATHS = ("prefill", "decode")

LOGIT_ROWS = 8
"""Last tokens of each path whose logits are compared."""

GRAM_ROWS = 32
"""Rows whose products with each other are compared."""

SMALL, FAR = 0.01, 600.0
"""Differences of logits up to which e^d − 1 − d is taken from its series, and to which e^d is taken
at all."""

ROTATION_ROWS = 16
"""Rows that decide which rotation a build applies."""


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


class Where(NamedTuple):
    """A side of a layer of the cell."""

    cache: int
    place: int
    side: str
    clean: bool
    """Whether it is known to be the model's first: there is one cache, and it comes first there."""


class Figures(NamedTuple):
    """How one side of one layer, by one path, compares with the reference quantizer."""

    path: str
    cache: int
    place: int
    """Number of the layer within its cache."""
    side: str
    type: str
    rotation: int | None
    """Size of the Hadamard matrix that the build applies; 1: none; ``None``: another basis."""
    rows: int
    first: int
    last: int
    """Positions."""
    heads: int
    blocks: int
    """Units per head."""
    equal: float
    """Share of bytes equal."""
    nmse: float
    """Stored against reference-quantized, both read back."""
    rounding: float
    """NMSE of the type on a normal distribution."""
    explained: float
    """NMSE that the rounding of the source explains."""
    gram: float
    """NMSE of the rows' products with each other, which no rotation changes."""
    pattern: dict[str, Any] | None


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


def compare(
    runs: Sequence[tuple[Run, Run, int]],
    types: Any,
    codecs: Codecs,
    widths: Sequence[tuple[int, int]],
) -> Iterator[Figures]:
    """Figures of every layer, side and path; one layer is in memory at a time.

    Args:
        runs: of the cell, the same of ``f16/f16``, and how many tokens came at once.
        types: the library's types by name.
        widths: per cache, elements of a head, K and V, by the model's header; the first holds for
            caches that it does not know.

    Raises:
        Unreadable: a state is not understood, or the two do not describe the same layers.
    """
    picks = [
        (pick, number, prompt)
        for cell, reference, prompt in runs
        for number, pick in _picks(cell, reference, types)
    ]
    for column, side in enumerate(SIDES):
        # a cache whose heads are of another size is rotated by another matrix, or by none
        for cache in dict.fromkeys(number for _, number, _ in picks):
            own = [(pick, prompt) for pick, number, prompt in picks if number == cache]
            width = widths[cache if cache < len(widths) else 0][column]
            votes = Counter(vote for pick, _ in own for vote in _votes(pick, side, width, codecs))
            rotation = max(votes, key=lambda size: (votes[size], size)) if votes else None
            for pick, prompt in own:
                yield from _compare_side(pick, cache, side, width, codecs, prompt, rotation)


def _picks(cell: Run, reference: Run, types: Any) -> Iterator[tuple[int, _Pick]]:
    found, meant = (census.read(state, types) for state in (cell.state, reference.state))
    for each in (found, meant):
        if each.problem is not None:
            raise Unreadable(each.problem)
    if [len(cache.layers) for cache in found.caches] != [len(one.layers) for one in meant.caches]:
        raise Unreadable("the cell's cache has other layers than that of f16/f16")
    for number, (ours, theirs) in enumerate(zip(found.caches, meant.caches, strict=True)):
        if ours.cells and theirs.cells:
            alone = len(found.caches) == 1
            yield number, _Pick(cell.state, reference.state, ours, theirs, alone)


def kl(cell: F32, reference: F32) -> float:
    """Mean KL(reference ‖ cell) over rows of logits, in nats.

    Without cancellation, and −inf a masked token, as in :mod:`pytest_kvquant.numerics.kernels`,
    which this process does not import: compiling that takes longer than these few rows.
    """
    wide = (np.asarray(logits, np.float64) for logits in (reference, cell))
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.mean([_kl(x, y) for x, y in zip(*wide, strict=True)]))


def _kl(x: F64, y: F64) -> float:
    """KL of one row from log Σ e^x and log Σ e^y where it is large, else as Σ p·(e^d − 1 − d)."""
    if not (np.isfinite(x.max()) and np.isfinite(y.max())):
        return math.nan  # NaN, +inf, or nothing but masked tokens
    seen = x > -np.inf
    if (y[seen] == -np.inf).any():
        return math.inf
    log_p, log_q = (row - np.logaddexp.reduce(row) for row in (x, y))
    p = np.exp(log_p[seen])
    d = (y - x)[seen]
    d -= d[x[seen].argmax()]
    d -= (p * d).sum()
    if d.max() > FAR:
        return float((p * (log_p - log_q)[seen]).sum())
    hidden, left = (float(np.exp(log_q[which]).sum()) for which in (~seen, seen))
    # What the reference alone masks takes its share of the cell's probability.
    share = -math.log1p(-hidden) if hidden < left else -math.log(left)
    series = d * d * (0.5 + d * (1 / 6 + d * (1 / 24 + d * (1 / 120 + d * (1 / 720)))))
    convex = np.where(np.abs(d) < SMALL, series, np.expm1(d) - d)
    return math.log1p(float((p * convex).sum())) + share


def kl_by_path(cell: F32, reference: F32, prompt: int, singles: int) -> dict[str, float]:
    """Mean KL of the logits of a :class:`Run`, by path; only paths that the run took."""
    split = min(prompt, LOGIT_ROWS)
    found = {"prefill": kl(cell[:split], reference[:split])} if split else {}
    return found | ({"decode": kl(cell[split:], reference[split:])} if singles else {})


class _Pick(NamedTuple):
    """Rows of both caches at the positions that both have."""

    state: U8
    reference: U8
    ours: census.Cache
    theirs: census.Cache
    alone: bool
    """Whether it is the only cache."""

    def rows(self, place: int, side: str, width: int, codec: Codec) -> StoredRows:
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


def _type(layer: census.CensusLayer, side: str) -> str | None:
    return layer.k_type if side == "K" else layer.v_type


def _places(pick: _Pick, side: str) -> list[int]:
    return [n for n, layer in enumerate(pick.ours.layers) if _type(layer, side) is not None]


def _compare_side(
    pick: _Pick,
    cache: int,
    side: str,
    width: int,
    codecs: Codecs,
    prompt: int,
    rotation: int | None,
) -> Iterator[Figures]:
    for place in _places(pick, side):
        codec = codecs[str(_type(pick.ours.layers[place], side))]
        rows = pick.rows(place, side, width, codec)
        clean = pick.alone and place == 0
        for path in PATHS:
            chosen = rows.positions < prompt if path == "prefill" else rows.positions >= prompt
            if chosen.any():
                part = StoredRows(rows.stored[chosen], rows.source[chosen], rows.positions[chosen])
                where = Where(cache, place, side, clean)
                yield _figures(part, path, where, codec, codecs, width, rotation)


def _figures(
    rows: StoredRows,
    path: str,
    where: Where,
    codec: Codec,
    codecs: Codecs,
    width: int,
    rotation: int | None,
) -> Figures:
    cache, place, side, clean = where
    grid = _grid(rows, codec, width)
    held = codec.floats(rows.stored)
    expected = codec.quantize(rotate(rows.source, rotation or 1))
    meant = codec.floats(expected)
    rounding = codec.basis(max(codec.block, min(grid.width, 256))).rounding

    def others(part: Any) -> Iterator[tuple[str, float | str, F32, F32]]:
        source = rows.source[part]
        for size in _rotations(grid.width):
            if size != rotation:
                yield "rotation", size, held[part], codec.through(rotate(source, size))
        for other in codecs.alike(codec):
            rotated = rotate(source, rotation or 1)
            yield "type", other.name, other.floats(rows.stored[part]), other.through(rotated)

    found = (
        pattern.find(held, meant, rows.positions, grid, rounding, clean=clean, others=others)
        if rotation is not None
        else None
    )
    return Figures(
        path, cache, place, side, codec.name, rotation,
        len(rows.stored), int(rows.positions[0]), int(rows.positions[-1]),
        meant.shape[1] // grid.width or 1, max(1, grid.width // grid.unit),
        float((rows.stored == expected).mean()),
        nmse(held, meant),
        rounding,
        pattern.explained(rounding),
        _gram(held, rows.source, grid.width),
        None if found is None else found._asdict(),
    )  # fmt: skip


def _grid(rows: StoredRows, codec: Codec, width: int) -> pattern.Grid:
    """Heads as stored, in units of a block (of 32 elements or so where blocks are smaller)."""
    elements = rows.source.shape[1]
    padded = -(-width // codec.block) * codec.block
    wide = padded if elements % padded == 0 else width
    if elements % wide:
        wide = elements
    unit = codec.block if codec.block >= 32 else math.gcd(wide, 32)
    return pattern.Grid(wide, unit)


def _rotations(width: int) -> list[int]:
    """Sizes of Hadamard matrices that fit into a head; 1 is none."""
    return [1, *(size for size in (32, 64, 128, 256, 512) if width % size == 0)]


def _votes(pick: _Pick, side: str, width: int, codecs: Codecs) -> Iterator[int]:
    """Per layer, the rotation in which it agrees with the reference quantizer, block by block.

    The median over blocks, and a vote of layers and runs: a fault in some does not sway it.
    """
    for place in _places(pick, side):
        codec = codecs[str(_type(pick.ours.layers[place], side))]
        rows = pick.rows(place, side, width, codec)
        step = max(1, len(rows.stored) // ROTATION_ROWS)
        held, source = codec.floats(rows.stored[::step]), rows.source[::step]
        grid = _grid(rows, codec, width)
        fits = {
            size: _median_share(held, codec.through(rotate(source, size)), grid.unit)
            for size in _rotations(grid.width)
        }
        best = min(fits, key=lambda size: fits[size])
        if fits[best] < 0.7:
            yield best


def _median_share(held: F32, meant: F32, unit: int) -> float:
    """Median over blocks of their squared error, as a share of their size."""
    error = np.square((held - meant).reshape(-1, unit)).sum(1)
    return float(np.median(error / np.maximum(np.square(meant.reshape(-1, unit)).sum(1), 1e-30)))


def _gram(held: F32, source: F32, width: int) -> float:
    """NMSE of the products of rows with each other, head by head; no rotation changes them."""
    step = max(1, len(held) // GRAM_ROWS)
    ours, theirs = (
        np.einsum("ahe,bhe->hab", part, part)
        for part in (
            values[::step].reshape(-1, values.shape[1] // width, width) for values in (held, source)
        )
    )
    return nmse(ours, theirs)


def _decode(context: Context, tokens: I32, start: int, stop: int, wanted: int) -> F32:
    """Decode some tokens; logits of the last ``wanted`` ones."""
    span = np.arange(start, stop, dtype=np.int32)
    outputs = np.zeros(len(span), np.int8)
    if wanted > 0:
        outputs[-wanted:] = 1
    return context.decode(tokens[start:stop], span, np.zeros_like(span), outputs).copy()
