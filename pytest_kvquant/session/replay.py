"""Kept evidence judged again: other budgets, other rules, no model.

The verdicts are those that a run with these budgets and rules would have reached on the same
chunks in the same order, as far as they were kept: a run that stopped at 8 chunks has no more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.checks.declaration import Figures
from pytest_kvquant.checks.family import holm_exit, settled
from pytest_kvquant.checks.gate_text import failure_text
from pytest_kvquant.checks.judging import figures_per_chunk, first_chunks, judge_figures
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.quality.evidence_file import EvidenceConditions, Kept, read_folder
from pytest_kvquant.results.gate import Gate


class Replayed(NamedTuple):
    """One cell, judged again."""

    conditions: EvidenceConditions
    """As kept; the budgets and rules in it are those of the run."""
    budgets: Budgets
    gates: tuple[Gate, ...]
    """None where a logit was not a number."""
    chunks: int
    """Chunks that the cell would have drawn before all its gates were settled."""
    stands: tuple[bool, ...]
    """Per gate: whether it fails in the light of the whole matrix (Holm)."""

    @property
    def verdict(self) -> str:
        """The cell's verdict alone: ``pass``, ``fail``, ``inconclusive`` or ``non-finite``."""
        if not self.gates:
            return "non-finite"
        verdicts = {gate.verdict for gate in self.gates}
        return next(word for word in ("fail", "inconclusive", "pass") if word in verdicts)


def replay(
    folder: Path,
    *,
    rules: Rules | None = None,
    budgets: Callable[[EvidenceConditions], Budgets] = lambda conditions: conditions.budgets,
) -> list[Replayed]:
    """Judge the evidence of a folder.

    Args:
        rules: instead of those of the run. A cap beyond the kept chunks is taken at them.
        budgets: from a cell's conditions to its budgets; as in the run if not given.

    Raises:
        EvidenceError: no evidence there, or a file that cannot be read.
    """
    return replay_cells(read_folder(folder), rules=rules, budgets=budgets)


def replay_cells(
    kept: Sequence[Kept],
    *,
    rules: Rules | None = None,
    budgets: Callable[[EvidenceConditions], Budgets] = lambda conditions: conditions.budgets,
) -> list[Replayed]:
    """Judge the evidence of the cells of one run; see :func:`replay`."""
    figures_in_run = max(cell.conditions.figures_in_run for cell in kept)
    judged = [_judge(cell, rules, budgets(cell.conditions), figures_in_run) for cell in kept]
    gates = [gate for cell in judged for gate in cell.gates]
    keeps = iter(holm_exit(gates, unmeasured=max(0, figures_in_run - len(gates))))
    return [cell._replace(stands=tuple(next(keeps) for _ in cell.gates)) for cell in judged]


def drawn(seen: Figures, scored: int, budgets: Budgets, rules: Rules, m: int) -> int:
    """Chunks of these that a run under ``rules`` would have drawn.

    Once settled a gate stays so: evidence against a budget only grows, and a pass is for good.

    Args:
        seen: figures of all chunks there are, each of shape ``(chunks,)``.
        scored: scored tokens per chunk.
        m: gated figures of the whole run.
    """
    most = min(len(seen["kl"]), rules.cap)
    if not rules.early:
        return most

    def enough(chunks: int) -> bool:
        so_far = first_chunks(seen, chunks)
        judged = judge_figures(so_far, scored, budgets, rules)
        return all(settled(gate, m) for gate in judged)

    return min(most, bisect_left(range(1, most + 1), True, key=enough) + 1)


def _judge(kept: Kept, rules: Rules | None, budgets: Budgets, figures_in_run: int) -> Replayed:
    evidence = kept.evidence(tail_over=budgets["kl_tail_over"])
    chunks = evidence.complete
    if not evidence.finite:
        return Replayed(kept.conditions, budgets, (), chunks, ())
    rules = rules or kept.conditions.rules
    rules = msgspec.structs.replace(rules, cap=min(rules.cap, chunks))
    seen = figures_per_chunk(evidence)
    chunks = drawn(seen, evidence.scored, budgets, rules, figures_in_run)
    so_far = first_chunks(seen, chunks)
    gates = judge_figures(so_far, evidence.scored, budgets, rules)
    return Replayed(kept.conditions, budgets, gates, chunks, ())


def as_text(cells: Sequence[Replayed]) -> str:
    """One line per cell: verdict, chunks, and each figure in budgets; then what is the matter."""
    lines = [f"{'cell':16}{'verdict':>14}{'chunks':>8}  figures as shares of their budgets"]
    for cell in cells:
        figures = "  ".join(f"{gate.name} {_in_budgets(gate)}" for gate in cell.gates)
        lines.append(f"{cell.conditions.pair:16}{cell.verdict:>14}{cell.chunks:>8}  {figures}")
    for cell in cells:
        for gate, stands in zip(cell.gates, cell.stands, strict=True):
            if gate.verdict == "pass":
                continue
            lines += ["", failure_text(gate, cell.conditions.pair)]
            if gate.verdict == "fail" and not stands:
                lines.append("  alone; among all gates of the run it may be chance")
    return "\n".join(lines)


def fails(cells: Sequence[Replayed]) -> bool:
    """Whether a run with these verdicts would have failed."""
    return any(any(cell.stands) or not cell.gates for cell in cells)


def _in_budgets(gate: Gate) -> str:
    if not gate.budget:
        return "equal" if not gate.figure else "not equal"
    return f"{abs(gate.figure) / gate.budget:.2f}"
