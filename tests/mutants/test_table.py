"""How many real edits of the CPU kernels the tests of kernels catch, corner by corner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from faults.operations.laboratory import Planting

from mutants.build import SWITCH, number_of, place, usable
from mutants.catalogue import HELD_OUT, Edit
from pytest_kvquant.matrix import REFERENCE, Pair

pytestmark = pytest.mark.mutants


class Judged(NamedTuple):
    """What became of a mutant."""

    edit: Edit
    tests: tuple[str, ...]
    """That fail."""
    text: str


@pytest.fixture(scope="module")
def lab(mutated: Path, tmp_path_factory: pytest.TempPathFactory) -> Planting:
    return Planting(tmp_path_factory.mktemp("mutants"), library=mutated, threads=2)


def test_without_a_mutant_everything_is_healthy(lab: Planting) -> None:
    for model, pair in sorted({(one.model, one.pair) for one in usable()}):
        examiner = lab.examiner(model, {SWITCH: "0"}, scenarios=model == "mini")
        assert not lab.failing(Pair.parse(pair), examiner, examiner.examine(REFERENCE)), model


def test_real_mutants(lab: Planting, capsys: pytest.CaptureFixture[str]) -> None:
    results = list(judged(lab))
    with capsys.disabled():
        print("\n" + table(results))
    assert share(results) >= 0.95, [one.edit.name for one in results if not one.tests]
    held = [one for one in results if one.edit.name in HELD_OUT]
    assert share(held) >= 0.9


def judged(lab: Planting) -> Iterator[Judged]:
    for one in usable():
        faulty = lab.examiner(one.model, {SWITCH: str(number_of(one))}, scenarios=one.scenarios)
        pair = Pair.parse(one.pair)
        if pair != REFERENCE:
            faulty.take_reference(lab.clean(one.model))
        found = lab.failing(pair, faulty, lab.clean(one.model).examine(REFERENCE))
        yield Judged(one, tuple(found), "; ".join(found.values()))


def share(found: list[Judged]) -> float:
    return sum(bool(one.tests) for one in found) / max(len(found), 1)


def table(results: list[Judged]) -> str:
    """A markdown table, mutant by mutant, then both halves."""
    lines = ["| corner | mutant | caught by |", "|---|---|---|"]
    for one in results:
        half = " (held out)" if one.edit.name in HELD_OUT else ""
        by = ", ".join(one.tests) or "**missed**"
        lines.append(f"| {one.edit.corner} | {one.edit.name}{half} | {by} |")
    for title, wanted in (("held out", True), ("seen", False)):
        half = [one for one in results if (one.edit.name in HELD_OUT) == wanted]
        lines.append(f"{title}: {sum(bool(one.tests) for one in half)} of {len(half)} caught")
    return "\n".join(lines)


def test_the_build_is_kept(lab: Planting) -> None:
    assert (place() / "lib").is_dir()
    assert not Path(place() / "part").exists()
