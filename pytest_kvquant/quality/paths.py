"""What the batched figures do not touch: the decode path, greedy text, batch shapes, restore.

Every measurement is a script for the cell's own context. The same script run on ``f16/f16``,
once per run, is its control: like is compared with like, so that a difference between two kernels
of f16 is not taken for a fault of the cell.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np

from pytest_kvquant.engine.messages.cell import Span, Step
from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.numerics.arrays import F32, I32
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.kernels import compare_rows, pairwise_kl
from pytest_kvquant.results.cell import Trajectory

DECODE_CHUNKS = 8
"""Chunks whose beginnings are decoded one token at a time."""
MORE_CHUNKS = 4
"""Times as many are, as far as the run has them, where these leave a pair undecided."""
PROMPTS = 4
SHAPE_ROWS = 16
"""Logits compared per batch shape."""
SHAPE_TOKENS = 128
"""Tokens of the sequence that is decoded in every batch shape."""

Steps: TypeAlias = list[Step]


class PathsPlan(NamedTuple):
    """The side measurements of a run, cut from its first chunks.

    Args of the arrays: tokens, each row one sequence.
    """

    prefixes: I32
    """Shape ``(chunks, prefix)``: brought into the cache by prefill. Of this and the next two the
    first :data:`DECODE_CHUNKS` are read, and the others where these leave a pair undecided."""
    decoded: I32
    """Shape ``(chunks, n)``: then decoded one at a time, with logits at each."""
    targets: I32
    """Shape ``(chunks, n)``: what followed each decoded token."""
    prompts: I32
    """Shape ``(prompts, tokens)``: continued greedily."""
    continued: int
    """Tokens of each continuation."""
    shaped: I32
    """Shape ``(sequences, tokens)``: decoded in several batch shapes, the first row compared."""

    @property
    def looks(self) -> tuple[int, ...]:
        """Chunks of the decode path after which a pair is judged, ascending."""
        count = len(self.decoded)
        return tuple(sorted({min(DECODE_CHUNKS, count), count}))

    def part(self, start: int, stop: int) -> PathsPlan:
        """The same with these chunks of the decode path alone."""
        decoded = (self.prefixes, self.decoded, self.targets)
        prefixes, tokens, targets = (rows[start:stop] for rows in decoded)
        return self._replace(prefixes=prefixes, decoded=tokens, targets=targets)


def plan(chunks: I32, *, decode_tokens: int, trajectory_tokens: int, sequences: int) -> PathsPlan:
    """Cut the side measurements from the chunks of a run.

    Args:
        chunks: shape ``(n, ctx)``.
        decode_tokens: tokens per cell to decode one at a time, over the chunks of the first look.
        trajectory_tokens: tokens per greedy continuation.
        sequences: how many sequences the context holds.
    """
    count, ctx = chunks.shape
    used = min(DECODE_CHUNKS, count)
    each = max(0, min(-(-decode_tokens // used), ctx // 2))
    prefix = max(1, min(ctx // 8, 512))
    head = chunks[: MORE_CHUNKS * used, : prefix + each + 1]
    prompt = min(16, ctx // 2)
    return PathsPlan(
        prefixes=head[:, :prefix],
        decoded=head[:, prefix : prefix + each],
        targets=head[:, prefix + 1 : prefix + each + 1],
        prompts=chunks[:PROMPTS, :prompt],
        continued=min(trajectory_tokens, ctx - prompt),
        shaped=chunks[: min(2, sequences, count), : min(SHAPE_TOKENS, ctx)],
    )


def decode_steps(plan: PathsPlan) -> Steps:
    """The script of the decode path: per chunk a prefix by prefill, then one token at a time."""
    steps: Steps = []
    for prefix, tokens in zip(plan.prefixes.tolist(), plan.decoded.tolist(), strict=True):
        steps += [["clear"], _whole(prefix, 0), ["each", 0, len(prefix), tokens]]
    return steps


def at_once_steps(plan: PathsPlan) -> Steps:
    """The tokens of the decode path by prefill: per chunk the prefix, then all of them at once."""
    steps: Steps = []
    for prefix, tokens in zip(plan.prefixes.tolist(), plan.decoded.tolist(), strict=True):
        whole = _decoded((0, len(prefix), tokens, len(tokens)))
        steps += [["clear"], _whole(prefix, 0), whole]
    return steps


def trajectory_steps(plan: PathsPlan) -> Steps:
    """The script of the greedy continuations."""
    steps: Steps = []
    for prompt in plan.prompts.tolist():
        steps += [["clear"], ["greedy", 0, 0, prompt, plan.continued]]
    return steps


def shape_scripts(plan: PathsPlan) -> dict[str, Steps]:
    """Scripts that end with the logits of the same tokens, each in another batch shape.

    ``alone`` is what the others are compared with, and ``parted`` what ``restored`` is.
    """
    rows = plan.shaped.tolist()
    tokens, last = rows[0], min(SHAPE_ROWS, len(rows[0]) // 2)
    body, tail = tokens[:-last], tokens[-last:]
    together = [(number, 0, row, last if number == 0 else 0) for number, row in enumerate(rows)]
    quarter = -(-len(body) // 4)
    pieces = [_decoded((0, at, body[at : at + quarter], 0)) for at in range(0, len(body), quarter)]
    end = _decoded((0, len(body), tail, last))
    scripts: dict[str, Steps] = {"alone": [["clear"], _whole(tokens, last)]}
    if len(rows) > 1:
        scripts["several sequences"] = [["clear"], _decoded(*together)]
    scripts["parted"] = [["clear"], *pieces, end]
    scripts["restored"] = [["clear"], *pieces, ["save", 0], ["clear"], ["restore", 0], end]
    return scripts


SMALL_UBATCH = "n_ubatch < n_batch"
"""The shape that needs a context of its own: one batch, which the library cuts."""


def small_ubatch(shape: BatchShape, plan: PathsPlan) -> BatchShape:
    """The shape whose physical batch is a quarter of the sequence that is decoded at once."""
    return msgspec.structs.replace(shape, ubatch=max(1, plan.shaped.shape[1] // 4))


class KeptLogits:
    """Rows of logits kept on disk for the length of a run, in order."""

    def __init__(self, rows: int, vocabulary: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as its map)
        self._file.truncate(max(1, rows * vocabulary) * 4)
        self.rows: F32 = np.memmap(self._file, np.float32, "r+", shape=(rows, vocabulary))


def shape_logits(worker: Worker, scripts: dict[str, Steps], vocabulary: int) -> dict[str, F32]:
    """The logits that each script ends with, shape ``(rows, vocabulary)`` each."""
    found = {}
    for name, steps in scripts.items():
        blocks = worker.run_script(steps, vocabulary)
        found[name] = np.concatenate([block.logits.copy() for block in blocks])
    return found


def shape_kl(logits: dict[str, F32]) -> dict[str, float]:
    """Mean KL of each shape against the one it should equal, nats."""
    return {
        name: float(pairwise_kl(logits["parted" if name == "restored" else "alone"], rows).mean())
        for name, rows in logits.items()
        if name != "alone"
    }


def decode_rows(worker: Worker, plan: PathsPlan, vocabulary: int) -> Iterator[tuple[int, F32]]:
    """Logits of the decode path one row at a time: number of the row, shape ``(1, vocabulary)``."""
    count = 0
    for block in worker.run_script(decode_steps(plan), vocabulary):
        if block.chunk % 3 == 2:  # clear, prefix, each
            yield count, block.logits
            count += len(block.logits)


def decode_evidence(
    worker: Worker,
    plan: PathsPlan,
    control: F32,
    vocabulary: int,
    evidence: Evidence,
    stop: int,
) -> None:
    """Compare the decode path of a cell with the control's, on chunks that the evidence lacks.

    Args:
        control: logits of f16 by the same script, shape ``(chunks·n, vocabulary)``.
        stop: chunks of the plan that the evidence has afterwards.
    """
    start, each = evidence.complete, plan.decoded.shape[1]
    part = plan.part(start, stop)
    reference, targets = control[start * each : stop * each], part.targets.ravel()
    for row, logits in decode_rows(worker, part, vocabulary):
        rows = slice(row, row + len(logits))
        figures = compare_rows(np.ascontiguousarray(reference[rows]), logits, targets[rows])
        evidence.put(start + row // each, row % each, figures)


def trajectory(chosen: list[list[int]], control: list[list[int]], tokens: int) -> Trajectory:
    """Compare greedy continuations, token by token."""
    divergences = tuple(
        next((at for at, pair in enumerate(zip(a, b, strict=True)) if pair[0] != pair[1]), tokens)
        for a, b in zip(chosen, control, strict=True)
    )
    return Trajectory(
        tokens=tokens,
        first_divergence=divergences,
        agreement=float(np.mean(divergences)) / tokens if tokens else 1.0,
    )


def _whole(tokens: list[int], outputs: int) -> Step:
    return _decoded((0, 0, tokens, outputs))


def _decoded(*spans: Span) -> Step:
    return ["decode", spans]
