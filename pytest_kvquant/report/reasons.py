"""Why a pair does not pass, in a few words; and what would decide what is undecided."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_kvquant import format
from pytest_kvquant.results.baseline import DRIFTED
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.results.speed import SpeedCell, SpeedTest

TITLES = {
    "kl_mean": "KL",
    "kl_tail": "KL tail",
    "ln_ppl_ratio": "PPL",
    "top1_flips": "flips",
    "decode_kl_mean": "decode KL",
}
"""Gates as a cell of the matrix names them."""

NIGHTLY_CAP = 128
"""Chunks that the nightly profile draws at most, before the plain mean decides."""


def short(cell: Cell | None, speed: SpeedCell | None, ceiling: Ceiling | None) -> list[str]:
    """What failed of a pair and by how much, the gravest first, each in two to five words."""
    found: list[str] = []
    if cell is not None:
        failing = [gate for gate in cell.gates if gate.verdict == "fail"]
        failing = [gate for gate in failing if gate.name not in cell.not_significant]
        found += [by_how_much(gate) for gate in sorted(failing, key=_excess, reverse=True)]
        for check in cell.checks:
            if check.verdict == "fail":
                found.append(_measured(check.name, check.figure, check.limit))
        if cell.baseline is not None and cell.baseline.verdict in DRIFTED:
            found.append(f"drift: {cell.baseline.verdict}")
    if speed is not None:
        found += [_slow(test) for test in speed.tests if _bad(test)]
        found += [f"{kind} cliff gone" for kind in speed.gone]
    if ceiling is not None and ceiling.verdict == "fail":
        found.append(f"context {ceiling.tokens:,} of {ceiling.floor:,}")
    return found


def by_how_much(gate: Gate) -> str:
    """A failing gate and its figure over its budget.

    Rounded so that a figure over its budget never reads as one that is on it.
    """
    title = TITLES.get(gate.name, gate.name)
    if gate.budget == 0:
        return f"{title} not identical"
    return f"{title} {_times(_excess(gate))} × budget"


def last_line(cell: Cell) -> str:
    """The last thing that the library said before a cell was lost, without its time stamps."""
    lines = [line.strip() for line in (cell.log or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def lacks(cell: Cell | None, speed: SpeedCell | None) -> list[str]:
    """What every undecided gate and test lacks, and the option that would decide it."""
    found: list[str] = []
    if cell is not None:
        for gate in cell.gates:
            if gate.verdict == "inconclusive":
                found.append(_lacking(gate))
            elif gate.name in cell.not_significant:
                found.append(
                    f"{TITLES.get(gate.name, gate.name)} is {_times(_excess(gate))} × its budget, "
                    "which fails alone and may be chance among all gates of the run; "
                    f"--kv-pairs {cell.pair} measures it alone"
                )
        found += [f"{one.name}: {one.text}" for one in cell.checks if one.verdict == "inconclusive"]
    if speed is not None:
        found += [_unsteady(test) for test in speed.tests if test.verdict == "inconclusive"]
    return found


def _lacking(gate: Gate) -> str:
    title = TITLES.get(gate.name, gate.name)
    if gate.chunks_needed is not None and gate.chunks_needed <= NIGHTLY_CAP:
        return (
            f"{title} is {_share(gate)} of its budget after {gate.chunks} chunks and lacks about "
            f"{max(gate.chunks_needed - gate.chunks, 1)} more: --kv-profile nightly, or "
            f"--kv-chunks {gate.chunks_needed}"
        )
    if abs(gate.figure) >= gate.budget:
        return (
            f"{title} is over its budget ({_times(_excess(gate))} ×), not yet surely: "
            f"--kv-profile nightly decides after {NIGHTLY_CAP} chunks"
        )
    return (
        f"{title} is {_share(gate)} of its budget, too close to tell: --kv-profile nightly decides "
        f"after {NIGHTLY_CAP} chunks; a budget of twice the healthy figure decides at once"
    )


def _unsteady(test: SpeedTest) -> str:
    rounds = len(test.ratios)
    return (
        f"{test.title}: {test.text}; more than {rounds} rounds (--kv-rounds {4 * max(rounds, 6)}) "
        "or a machine that does nothing else would decide"
    )


def _excess(gate: Gate) -> float:
    return abs(gate.figure) / gate.budget if gate.budget else float("inf")


def _share(gate: Gate) -> str:
    return f"{100 * abs(gate.figure) / gate.budget:.0f} %" if gate.budget else "0"


def _times(ratio: float) -> str:
    """A multiple with two digits; above 1 it never reads 1.0.

    >>> _times(3.14159), _times(1.004), _times(27.4), _times(1234.0)
    ('3.1', '1.01', '27', '1,234')
    """
    if 1 < ratio < 1.1:
        return f"{max(ratio, 1.01):.2f}"
    return f"{ratio:.1f}" if ratio < 10 else format.count(ratio)


def _measured(name: str, figure: float | None, limit: float | None) -> str:
    if figure is not None and limit and figure > limit > 0:
        return f"{name} {_times(figure / limit)} × limit"
    return name


def _bad(test: SpeedTest) -> bool:
    return test.verdict not in ("pass", "inconclusive") and not test.declared


def _slow(test: SpeedTest) -> str:
    if test.ratio is None:
        return f"{test.title} {test.verdict}"
    return f"{test.title} {format.factor(test.ratio)} × f16, floor {test.floor:g}"


def joined(words: Iterable[str], most: int) -> str:
    """The first few, and how many more there are.

    >>> joined(["KL 3.1 × budget", "flips 2.0 × budget"], 1)
    'KL 3.1 × budget, 1 more'
    """
    words = list(words)
    more = [f"{len(words) - most} more"] if len(words) > most else []
    return ", ".join(words[:most] + more)
