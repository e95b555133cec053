"""What ``[expect] fails`` declares: a known fault passes, a gone one fails.

A declaration names a check, a gate, a scenario of cache operations (``operations.shift_head``), or
the verdict of a cell that cannot be measured (``crashed``).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.kernel_names import KERNEL_GATES
from pytest_kvquant.config.overrides import Expect
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.gate import Gate

UNMEASURED = ("crashed", "timeout", "out-of-memory", "strained", "unsupported", "non-finite")
"""Verdicts of cells without figures that can be declared."""

ALSO_CALLED = {
    "aliased": "distinct", "inactive": "active", "off-device": "off_device"
}  # fmt: skip
"""Verdicts that a check of another name gives."""

SCENARIOS = "operations."
"""How names of scenarios begin."""


def as_declared(found: Check, declared: Collection[str]) -> Check:
    """The check in the light of what is declared to fail.

    Args:
        declared: names; those of scenarios are weighed by the check of operations itself.
    """
    if found.name not in _called(declared) or found.verdict == "inconclusive":
        return found
    if found.verdict == "fail":
        text = f"fails, as [expect] says: {found.text}"
        return msgspec.structs.replace(found, verdict="pass", text=text)
    return msgspec.structs.replace(found, verdict="fail", text=_gone(found.name, found.text))


def gates_as_declared(gates: Iterable[Gate], declared: Collection[str]) -> tuple[Gate, ...]:
    """The same for gates: one that fails as declared is no evidence against the run."""
    return tuple(_gate(gate) if gate.name in declared else gate for gate in gates)


def _gate(found: Gate) -> Gate:
    if found.verdict == "inconclusive":
        return found
    if found.verdict == "fail":
        rule = f"fails, as [expect] says; {found.rule}"
        return msgspec.structs.replace(found, verdict="pass", p_value=1.0, rule=rule)
    rule = _gone(found.name, found.rule)
    return msgspec.structs.replace(found, verdict="fail", p_value=0.0, rule=rule)


def is_declared(cell: Cell, declared: Collection[str]) -> bool:
    """Whether a cell could not be measured, and ``[expect]`` says so."""
    return not cell.gates and cell.verdict in declared and cell.verdict in UNMEASURED


def gone_verdicts(declared: Collection[str]) -> list[str]:
    """Declared verdicts of a cell that has been measured after all, in sentences."""
    return [_gone(name, "the cell was measured") for name in sorted(declared) if name in UNMEASURED]


def _gone(name: str, text: str) -> str:
    return (
        f"[expect] declares that {name} fails, and it does not any more ({text}); remove that line"
        if name not in UNMEASURED
        else f"[expect] declares {name}, and it is not any more ({text}); remove that line"
    )


def _called(declared: Collection[str]) -> set[str]:
    return {ALSO_CALLED.get(name, name) for name in declared}


def require_known(expect: Mapping[str, Expect], scenarios: Callable[[], Iterable[str]]) -> None:
    """Every declared name is of a check, a gate, a scenario or a verdict.

    Args:
        scenarios: gives the names of all that can be played; asked where one is declared.

    Raises:
        SettingsError: one is none of them; the nearest is named.
    """
    known = {
        *(one.name for one in registry.declared()),
        *KERNEL_GATES.values(),
        *UNMEASURED,
        *ALSO_CALLED,
    }
    named = [
        (f'"{pattern}"]{of}', name)
        for pattern, entry in expect.items()
        for of, names in [
            (" fails", entry.fails),
            *((f" zoo.{k}", v) for k, v in entry.zoo.items()),
        ]
        for name in names
    ]
    if any(name.startswith(SCENARIOS) for _, name in named):
        known |= {SCENARIOS + name for name in scenarios()}
    for where, name in named:
        if name in known:
            continue
        near = difflib.get_close_matches(name, sorted(known), 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise SettingsError(
            f'[expect.{where} = ["{name}"]: there is no check, gate, operation or '
            f"verdict of that name{hint}"
        )
