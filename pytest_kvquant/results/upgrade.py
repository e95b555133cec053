"""Results of earlier versions as this one reads them: keys that were renamed, once per version."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_kvquant.numerics.untyped import Parsed

FIRST = "pytest-kvquant/1"
SECOND = "pytest-kvquant/2"


def _renamed(table: dict[str, Parsed], names: Mapping[str, str]) -> None:
    for old, new in names.items():
        if old in table:
            table[new] = table.pop(old)


def _to_second(result: dict[str, Parsed]) -> None:
    """Field names of the table in ``docs/glossary.md`` instead of private ones."""
    for cell in result.get("cells", ()):
        _renamed(cell, {"alone": "not_significant"})
        if cell.get("census"):
            _renamed(cell["census"], {"compression": "compression_expected"})
    for speed in result.get("speed", ()):
        for test in speed.get("tests", ()):
            _renamed(test, {"spread": "iqr_over_median"})
    for advice in result.get("advice", ()):
        for candidate in advice.get("candidates", ()):
            _renamed(candidate, {"compression": "compression_measured"})


STEPS: dict[str, tuple[str, Callable[[dict[str, Parsed]], None]]] = {FIRST: (SECOND, _to_second)}
"""By schema: the next one, and what leads there."""


def upgrade(result: dict[str, Parsed]) -> dict[str, Parsed]:
    """A result of an earlier schema in the newest one; of an unknown one, as it is."""
    while (step := STEPS.get(str(result.get("schema")))) is not None:
        newer, change = step
        change(result)
        result["schema"] = newer
    return result
