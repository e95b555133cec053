"""Recorded evidence judged again and again, with chunks re-drawn from what was recorded.

A replay draws as many chunks as the cap, with replacement, and is judged as a run of the whole
matrix would be: early, look by look, with Holm over all its gated figures.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest  # type: ignore[import-untyped, unused-ignore]

from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.checks.family import holm_exit, settled
from pytest_kvquant.checks.judging import judge_figures
from pytest_kvquant.numerics.evidence import ChunkFigures, Evidence
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.session.replay import drawn

PR = Rules(cap=32)
I64 = npt.NDArray[np.int64]


class Cell(NamedTuple):
    """A cell's recorded figures and what they may be."""

    seen: ChunkFigures
    scored: int
    budgets: Budgets

    @classmethod
    def of(cls, evidence: Evidence, budgets: Budgets) -> Cell:
        """A cell of recorded evidence."""
        return cls(evidence.per_chunk(), evidence.scored, budgets)

    def worth(self) -> float:
        """The largest of its figures, in budgets."""
        seen, budgets = self.seen, self.budgets
        figures = {
            "kl": (seen.kl, budgets["kl_mean"]),
            "tail": (seen.tail, budgets["kl_tail"]),
            "ln": (seen.ln_ppl, budgets["ln_ppl"]),
            "flips": (seen.flips, budgets["top1_flips"]),
        }
        means = [(abs(float(x.mean())), budget) for x, budget in figures.values()]
        return max(mean / budget if budget else (np.inf if mean else 0.0) for mean, budget in means)

    def on_budget(self) -> Cell:
        """The same cell with every budget exactly at the figure: neither within nor beyond."""
        seen = self.seen
        exact = {
            **self.budgets,
            "kl_mean": float(np.maximum(seen.kl, 0).mean()),
            "kl_tail": float(seen.tail.mean()),
            "ln_ppl": abs(float(seen.ln_ppl.mean())),
            "top1_flips": float(seen.flips.mean()),
        }
        return self._replace(budgets=exact)


class Outcome(NamedTuple):
    """One cell of one replay."""

    seen: ChunkFigures
    """In the order drawn."""
    gates: tuple[Gate, ...]
    chunks: int


def draw(cell: Cell, order: I64, figures_in_run: int, rules: Rules = PR) -> Outcome:
    """A cell as a run would have judged it on these chunks in this order."""
    seen = ChunkFigures._make(column[order] for column in cell.seen)
    chunks = drawn(seen._asdict(), cell.scored, cell.budgets, rules, figures_in_run)
    return Outcome(seen, _judge(cell, seen, chunks, rules), chunks)


def caught_at(cell: Cell, outcome: Outcome, figures_in_run: int) -> int | None:
    """Chunks until a gate fails for the whole run, whatever the other cells say; or never."""

    def stands(gates: tuple[Gate, ...]) -> bool:
        return any(gate.verdict == "fail" and settled(gate, figures_in_run) for gate in gates)

    if not stands(outcome.gates):
        return None
    at = bisect_left(
        range(1, outcome.chunks),
        True,
        key=lambda n: stands(_judge(cell, outcome.seen, n, PR)),
    )
    return at + 1


def _judge(cell: Cell, seen: ChunkFigures, chunks: int, rules: Rules) -> tuple[Gate, ...]:
    so_far = ChunkFigures._make(column[:chunks] for column in seen)
    return judge_figures(so_far._asdict(), cell.scored, cell.budgets, rules)


class Runs(NamedTuple):
    """Replays of a whole matrix."""

    false_alarms: int
    runs: int
    chunks: npt.NDArray[np.int64]
    """Chunks per run and cell, shape ``(runs, cells)``."""
    passed: npt.NDArray[np.bool_]
    """Whether all gates of the cell passed, same shape."""


def replay_matrix(
    cells: Mapping[str, Cell], runs: int, figures_in_run: int, *, seed: int, rules: Rules = PR
) -> Runs:
    """Whole-matrix replays; every cell of a replay sees the same chunks, as in a run."""
    rng = np.random.default_rng(seed)
    recorded = len(next(iter(cells.values())).seen.kl)
    alarms, chunks, passed = 0, [], []
    for _ in range(runs):
        order = rng.integers(0, recorded, rules.cap)
        outcomes = [draw(cell, order, figures_in_run, rules) for cell in cells.values()]
        gates = [gate for outcome in outcomes for gate in outcome.gates]
        alarms += any(holm_exit(gates, unmeasured=max(0, figures_in_run - len(gates))))
        chunks.append([outcome.chunks for outcome in outcomes])
        passed.append(
            [all(gate.verdict == "pass" for gate in outcome.gates) for outcome in outcomes]
        )
    return Runs(alarms, runs, np.array(chunks), np.array(passed))


def alarms_at_cap(
    cells: Mapping[str, Cell], runs: int, figures_in_run: int, *, seed: int, rules: Rules = PR
) -> int:
    """Of so many whole-matrix replays, those with a false alarm, every cell drawn to the cap.

    A gate that fails early keeps its verdict and only gathers evidence with more chunks, so this
    counts every alarm that a run which stops early would have raised, at a sixth of the work.
    """
    rng = np.random.default_rng(seed)
    recorded = len(next(iter(cells.values())).seen.kl)
    alarms = 0
    for _ in range(runs):
        order = rng.integers(0, recorded, rules.cap)
        gates = [
            gate
            for cell in cells.values()
            for gate in _judge(
                cell, ChunkFigures._make(x[order] for x in cell.seen), rules.cap, rules
            )
        ]
        alarms += any(holm_exit(gates, unmeasured=max(0, figures_in_run - len(gates))))
    return alarms


class Detection(NamedTuple):
    """How a fault fared."""

    caught: int
    runs: int
    chunks: tuple[int, ...]
    """Chunks needed, of the replays that caught it."""
    by: tuple[str, ...]
    """Gates that failed in any replay, most frequent first."""


def replay_fault(cell: Cell, runs: int, figures_in_run: int, *, seed: int) -> Detection:
    """Replays of one faulty cell within a matrix whose other gates are silent."""
    rng = np.random.default_rng(seed)
    needed: list[int] = []
    by: dict[str, int] = {}
    for _ in range(runs):
        outcome = draw(cell, rng.integers(0, len(cell.seen.kl), PR.cap), figures_in_run)
        for gate in outcome.gates:
            if gate.verdict == "fail":
                by[gate.name] = by.get(gate.name, 0) + 1
        if (chunks := caught_at(cell, outcome, figures_in_run)) is not None:
            needed.append(chunks)
    return Detection(len(needed), runs, tuple(needed), tuple(sorted(by, key=lambda x: -by[x])))


def interval(hits: int, runs: int) -> str:
    """A share with its exact 95 % interval, in percent."""
    low, high = binomtest(hits, runs).proportion_ci(0.95, "exact")
    return f"{100 * hits / runs:6.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


def median(chunks: Sequence[int]) -> float:
    """The median, or infinity of nothing."""
    return float(np.median(chunks)) if chunks else float("inf")
