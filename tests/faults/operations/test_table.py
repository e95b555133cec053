"""How many of the planted operations the tests of kernels catch, corner by corner."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from faults.operations.catalogue import ALL, HELD_OUT
from faults.operations.laboratory import Caught, Planting

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Caught]:
    lab = Planting(tmp_path_factory.mktemp("operations"))
    return [lab.plant(fault) for fault in ALL]


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
