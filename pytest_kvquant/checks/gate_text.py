"""What a test says about a gate: figure, interval, budget, chunks, rule."""

from __future__ import annotations

from pytest_kvquant import format
from pytest_kvquant.checks import registry
from pytest_kvquant.checks.kernel_names import KERNEL_GATES, TITLES
from pytest_kvquant.results.gate import Gate, Unit, Verdict

_ENDINGS: dict[Verdict, str] = {
    "pass": "passes",
    "fail": "fails",
    "inconclusive": "is inconclusive",
}


def failure_text(gate: Gate, cell: str) -> str:
    """What a test says about a gate of `cell` (`K/V`): figure, interval, budget, chunks, rule."""
    both = gate.unit == "ln ratio"
    limit = "a limit" if gate.question == "kernel" else "a budget"
    budget = _show(gate.budget, gate.unit)
    lines = [
        f"{cell}: {_title(gate.name)} {_ENDINGS[gate.verdict]}: {_show(gate.figure, gate.unit)}"
        f" against {limit} of {f'±{budget[1:]}' if both else budget}",
        *_shown_healthy(gate),
        f"  interval  {_show_interval(gate)}",
        f"  chunks    {_show_chunks(gate)}",
        f"  evidence  {_show_evidence(gate)}",
        f"  rule      {gate.rule}",
    ]
    if gate.verdict == "inconclusive":
        lines.append(f"  to pass   {_show_needed(gate)}")
    return "\n".join(lines)


def _shown_healthy(gate: Gate) -> list[str]:
    """What the cell measured, and what its types must cost on the same tokens."""
    if gate.measured is None or gate.healthy is None:
        return []
    return [f"  healthy   {gate.healthy:.4g} by emulation, measured {gate.measured:.4g}"]


def _show(figure: float, unit: Unit) -> str:
    return format.figure(figure, unit)


def _show_interval(gate: Gate) -> str:
    if gate.low is None or gate.high is None:
        return "none, too few chunks"
    ends = f"{_show(gate.low, gate.unit)} to {_show(gate.high, gate.unit)}"
    return f"{ends} ({100 * (1 - 2 * gate.level):.4g} %)"


def _show_chunks(gate: Gate) -> str:
    if gate.decided_at is None:
        return f"{gate.chunks} used, not decided"
    by = " by the plain mean of all (census)" if gate.census else ""
    return f"{gate.chunks} used, decided at {gate.decided_at}{by}"


def _show_evidence(gate: Gate) -> str:
    e_value = "" if gate.e_value is None else f"E = {gate.e_value:.3g}, "
    return f"{e_value}p = {gate.p_value:.2g} (alpha {gate.alpha:g})"


def _show_needed(gate: Gate) -> str:
    if gate.chunks_needed is not None:
        return f"about {gate.chunks_needed} chunks, if the figure stays as it is"
    if abs(gate.figure) >= gate.budget:
        return "no number of chunks, if the figure stays as it is: it is not under the budget"
    return "unknown, from too few chunks or a figure too close to the budget"


def _title(name: str) -> str:
    """What a gate is called in a sentence; its name where this installation does not have it."""
    found = registry.find(name)
    return found.title if found else TITLES.get(name, name)


def short_title(name: str) -> str:
    """What a gate or check is called where there is little room.

    A gate beside the healthy cell bears the title of the absolute one: what it is held against
    stands behind the number.
    """
    if name in SHORT:
        return SHORT[name]
    found = registry.find(ABSOLUTE.get(name, name))
    return found.short if found else name


def by_decoding(name: str) -> bool:
    """Whether a gate rests on tokens that are decoded one at a time."""
    found = registry.find(ABSOLUTE.get(name, name))
    return found is not None and found.needs == "decode"


SHORT = {"ln_ppl_shift": "PPL shift"}
"""No ratio as the others are."""

ABSOLUTE = {beside: gate for gate, beside in KERNEL_GATES.items()}
"""The gate within a budget by the one beside the healthy cell."""
