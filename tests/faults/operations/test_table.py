"""How many of the planted operations the tests of kernels catch, corner by corner."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from faults.operations.catalogue import ALL, HELD_OUT, LATER
from faults.operations.laboratory import Caught, Planting

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Caught]:
    lab = Planting(tmp_path_factory.mktemp("operations"))
    return [lab.plant(fault) for fault in ALL]


def test_the_diagnosis_is_right_or_silent(results: list[Caught], capsys) -> None:
    """Of all that is caught: right in nine of ten, never wrong, the rest unexplained."""
    with capsys.disabled():
        print("\n" + diagnoses(results))
    caught = [one for one in results if one.tests]
    assert not [one.fault.name for one in caught if one.diagnosis == "wrong"]
    assert sum(one.diagnosis == "right" for one in caught) >= 0.9 * len(caught)


def diagnoses(results: list[Caught]) -> str:
    """A markdown table by corner, then what was not named right."""
    lines = ["| corner | caught | named right | wrong | unexplained | one of them |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    caught = [one for one in results if one.tests]
    for corner in [*dict.fromkeys(one.fault.corner for one in caught), "all"]:
        rows = [one for one in caught if corner in ("all", one.fault.corner)]
        counts = [sum(one.diagnosis == word for one in rows)
                  for word in ("right", "wrong", "unexplained")]  # fmt: skip
        said = next((one.located.sentence for one in rows if one.located), "")
        shown = f"{corner} | {len(rows)} | {counts[0]} | {counts[1]} | {counts[2]}"
        lines.append(f"| {shown} | {said if corner != 'all' else ''} |")
    lines += [f"- {one.diagnosis}: {one.fault.corner}, {one.fault.name}: "
              f"{one.located.sentence if one.located else one.text[:160]}"
              for one in caught if one.diagnosis != "right"]  # fmt: skip
    return "\n".join(lines)


def share(found: list[Caught]) -> float:
    return sum(bool(one.tests) for one in found) / max(len(found), 1)


def test_planted_operations(results: list[Caught], tmp_path: Path, capsys) -> None:
    with capsys.disabled():
        print("\n" + table(results))
    by_corner: dict[str, list[Caught]] = defaultdict(list)
    for one in results:
        by_corner[one.fault.corner].append(one)
    assert not [one.fault.name for one in results if not one.hits]
    assert share(results) >= 0.97
    for corner, found in by_corner.items():
        assert share(found) >= 0.9, corner
    held = [one for one in results if one.fault.name in HELD_OUT]
    assert share(held) >= 0.95


def test_kinds_that_came_when_all_limits_stood(tmp_path: Path) -> None:
    """Sizes and lengths between, one group, one stream, one row in 97, one lane."""
    lab = Planting(tmp_path)
    found = [lab.plant(fault) for fault in LATER]
    assert not [one.fault.name for one in found if not one.hits]
    assert not [one.fault.name for one in found if not one.tests]


def table(results: list[Caught]) -> str:
    """A markdown table by corner, then what was missed."""
    lines = ["| corner | faults | near the limits | caught | tests that caught them |",
             "|---|---|---|---|---|"]  # fmt: skip
    corners = dict.fromkeys(one.fault.corner for one in results)
    for corner in [*corners, "all", "of these: held out", "of these: seen"]:
        rows = [one for one in results if _belongs(one, corner)]
        tests = sorted({test for one in rows for test in one.tests[:1]})
        near = sum(one.fault.near for one in rows)
        caught = sum(bool(one.tests) for one in rows)
        lines.append(f"| {corner} | {len(rows)} | {near} | {caught} | {', '.join(tests)} |")
    missed = [f"- missed: {one.fault.corner}: {one.fault.name} (alive {one.hits} times)"
              for one in results if not one.tests]  # fmt: skip
    return "\n".join([*lines, *missed])


def _belongs(one: Caught, corner: str) -> bool:
    held = one.fault.name in HELD_OUT
    return {
        "all": True,
        "of these: held out": held,
        "of these: seen": not held,
    }.get(corner, one.fault.corner == corner)
