"""Why a pair does not pass, in a few words; and what would decide what is undecided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_kvquant import format
from pytest_kvquant.checks.gate_text import by_decoding, short_title
from pytest_kvquant.checks.healthy import NOT_JUDGED
from pytest_kvquant.numerics.rules import PROFILES
from pytest_kvquant.results.baseline import DRIFTED
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.results.speed import SpeedCell, SpeedTest

PR_CAP, NIGHTLY_CAP = PROFILES["pr"].cap, PROFILES["nightly"].cap
"""Chunks that these profiles draw at most, of nightly before the plain mean decides."""


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
    """A failing gate and its figure over its budget, or over the healthy cell's.

    Rounded so that a figure over its budget never reads as one that is on it.
    """
    title = short_title(gate.name)
    if gate.unit == "ratio":
        return f"{title} {_times(gate.figure)} × healthy"
    if gate.budget == 0:
        return f"{title} not identical"
    return f"{title} {_times(_excess(gate))} × {'limit' if gate.question == 'kernel' else 'budget'}"


def last_line(cell: Cell) -> str:
    """The last thing that the library said before a cell was lost, without its time stamps."""
    lines = [line.strip() for line in (cell.log or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def lacks(cell: Cell | None, speed: SpeedCell | None) -> list[str]:
    """What a pair's undecided gates lack together, in a line with the option that would decide
    them; what may be chance, undecided checks and speeds, a line each kind."""
    found: list[str] = []
    if cell is not None:
        open_ones = [gate for gate in cell.gates if gate.verdict == "inconclusive"]
        found += _lacking([one for one in open_ones if not by_decoding(one.name)])
        found += _few_decoded([one for one in open_ones if by_decoding(one.name)], cell)
        found += [_perhaps_chance(cell, gate) for gate in cell.gates
                  if gate.name in cell.not_significant]  # fmt: skip
        found += [_open_check(cell, one) for one in cell.checks if one.verdict == "inconclusive"]
    if speed is not None:
        found += _unsteady([test for test in speed.tests if test.verdict == "inconclusive"])
    return found


def undecided_lines(cells: Iterable[Cell], speeds: Iterable[SpeedCell]) -> list[str]:
    """A line for each undecided pair; the last ones of many only by name."""
    measured = {one.pair: one for one in cells}
    timed = {one.pair: one for one in speeds}
    open_ones = {
        pair: words
        for pair in dict.fromkeys([*measured, *timed])
        if (words := lacks(measured.get(pair), timed.get(pair)))
    }
    told = list(open_ones)[:MOST_UNDECIDED]
    lines = [f"{pair}: undecided: {words}" for pair in told for words in open_ones[pair]]
    if more := list(open_ones)[MOST_UNDECIDED:]:
        lines.append(
            f"undecided as well: {', '.join(more)}; kvquant show kv.json K/V says what each lacks "
            "(--kv-json kv.json keeps it)"
        )
    return lines


MOST_UNDECIDED = 5
"""Undecided pairs that are told in full above the matrix."""


def _few_decoded(gates: Sequence[Gate], cell: Cell) -> list[str]:
    """Gates to which more chunks give no more tokens."""
    if not gates or cell.quality is None or cell.quality.decode is None:
        return _lacking(gates)
    tokens = cell.quality.decode.tokens
    named = ", ".join(map(_so_far, gates))
    return [f"{named}, open after {tokens} tokens: --kv-decode {4 * tokens} would tell more"]


def _lacking(gates: Sequence[Gate]) -> list[str]:
    if not gates:
        return []
    emulated = [gate for gate in gates if not gate.rule.startswith(NOT_JUDGED)]
    lines = [
        f"{short_title(gate.name)} {gate.rule[0].lower()}{gate.rule[1:]}; "
        "a budget of its own in [budgets] decides without"
        for gate in gates
        if gate not in emulated
    ]
    if not emulated:
        return lines[:1]
    seen = max(gate.chunks for gate in emulated)
    named = joined(map(_so_far, sorted(emulated, key=_excess, reverse=True)), MOST_NAMED)
    after = "1 chunk" if seen == 1 else f"{seen} chunks"
    return [f"{named}, open after {after}: {_option(emulated, seen)}", *lines[:1]]


MOST_NAMED = 3
"""Undecided gates of a pair that are named; how many more there are stands behind them."""


def _so_far(gate: Gate) -> str:
    """Where a gate stands that is not decided."""
    title = short_title(gate.name)
    if gate.unit == "ratio":
        return f"{title} {gate.figure:.2f} × healthy"
    kind = "limit" if gate.question == "kernel" else "budget"
    if not gate.budget or abs(gate.figure) > gate.budget:
        return f"{title} {_times(_excess(gate))} × {kind}"
    return f"{title} {_share(gate)} of {kind}"


def _option(gates: Sequence[Gate], seen: int) -> str:
    """What decides all of them."""
    needed = [gate.chunks_needed for gate in gates]
    chunks = max((one for one in needed if one is not None), default=0)
    if None not in needed and chunks <= NIGHTLY_CAP:
        return f"--kv-chunks {max(chunks, seen + 1)} would decide, or --kv-profile nightly"
    if seen >= NIGHTLY_CAP:
        return f"--kv-chunks {max(chunks, 2 * seen)} on a longer text would tell more"
    near = [gate for gate in gates if gate.question == "fitness" and _excess(gate) >= NEAR]
    more = "; or a budget of twice the healthy figure" if near and seen >= FEW else ""
    nightly = f"--kv-profile nightly (at most {NIGHTLY_CAP} chunks) would decide{more}"
    return nightly if seen >= PR_CAP else f"--kv-profile pr ({PR_CAP}) would tell more, {nightly}"


NEAR = 0.5
"""Share of a budget beyond which a figure is told to lie close under it."""

FEW = 8
"""Chunks below which it is their number that is lacking, not a budget's room."""


def _perhaps_chance(cell: Cell, gate: Gate) -> str:
    return (
        f"{by_how_much(gate)} fails alone and may be chance among all gates of the run; "
        f"--kv-pairs {cell.pair} measures it alone"
    )


def _open_check(cell: Cell, check: Check) -> str:
    alone = f"; --kv-pairs {cell.pair} measures it alone, where chance is not shared with others"
    return f"{check.name}: {check.text}{alone if check.name == 'recall' else ''}"


def _unsteady(tests: Sequence[SpeedTest]) -> list[str]:
    """Open speed tests in a line; one whose text tells a cause of its own, with that."""
    if not tests:
        return []
    rounds = max(len(test.ratios) for test in tests)
    cause = next((test.text.partition("; ")[2] for test in tests if "; " in test.text), "")
    return [
        f"{joined(map(_speed_so_far, tests), MOST_NAMED)}, open after {rounds} rounds"
        f"{f' ({cause})' if cause else ''}: --kv-rounds {4 * max(rounds, 6)}, or a machine that "
        "does nothing else, would decide"
    ]


def _speed_so_far(test: SpeedTest) -> str:
    if test.ratio is None:
        return f"{test.title} {test.text}"
    return f"{test.title} {format.factor(test.ratio)} × f16 (floor {test.floor:g})"


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
