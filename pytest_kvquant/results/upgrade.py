"""Results of earlier versions as this one reads them: keys that were renamed, once per version."""

from __future__ import annotations

from collections.abc import Callable, Mapping

FIRST = "pytest-kvquant/1"
SECOND = "pytest-kvquant/2"


def _renamed(table: object, names: Mapping[str, str]) -> None:
    for old, new in names.items():
        if isinstance(table, dict) and old in table:
            table[new] = table.pop(old)


def _tables(table: dict[str, object], name: str) -> list[dict[str, object]]:
    """The tables of a list; what is no table is left to the decoder's complaint."""
    found = table.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _to_second(result: dict[str, object]) -> None:
    """Field names of the table in ``docs/glossary.md`` instead of private ones."""
    for cell in _tables(result, "cells"):
        _renamed(cell, {"alone": "not_significant"})
        _renamed(cell.get("census"), {"compression": "compression_expected"})
    for speed in _tables(result, "speed"):
        for test in _tables(speed, "tests"):
            _renamed(test, {"spread": "iqr_over_median"})
    for advice in _tables(result, "advice"):
        for candidate in _tables(advice, "candidates"):
            _renamed(candidate, {"compression": "compression_measured"})


STEPS: dict[str, tuple[str, Callable[[dict[str, object]], None]]] = {FIRST: (SECOND, _to_second)}
"""By schema: the next one, and what leads there."""


def upgrade(result: dict[str, object]) -> dict[str, object]:
    """A result of an earlier schema in the newest one; of an unknown one, as it is."""
    while (step := STEPS.get(str(result.get("schema")))) is not None:
        newer, change = step
        change(result)
        result["schema"] = newer
    return result
