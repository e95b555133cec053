"""``kvquant reproduce`` on ten mutants: it shows the fault, and no more once the fault is out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.operations.laboratory import Planting

from mutants.build import SWITCH, number_of, usable
from mutants.catalogue import Edit
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.kernels import NodeFailure

pytestmark = pytest.mark.mutants

TEN = tuple(one for one in usable() if not one.scenarios)[:10]


@pytest.fixture(scope="module")
def lab(mutated: Path, tmp_path_factory: pytest.TempPathFactory) -> Planting:
    found = Planting(tmp_path_factory.mktemp("mutants"), library=mutated, threads=2)
    found.reproducers = found.folder / "nodes"
    return found


def shown(lab: Planting, file: str, mutant: int) -> tuple[int, str]:
    """Exit code and words of the command, as a person runs it."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest_kvquant", "reproduce", file, "--kv-lib", str(lab.library)],
        env={**os.environ, SWITCH: str(mutant)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


def failures(lab: Planting, one: Edit) -> list[NodeFailure]:
    """Wrong nodes that have a file."""
    faulty = lab.examiner(one.model, {SWITCH: str(number_of(one))}, scenarios=False)
    pair = Pair.parse(one.pair)
    if pair != REFERENCE:
        faulty.take_reference(lab.clean(one.model))
    return [found for found in faulty.examine(pair).failures if found.reproducer]


@pytest.mark.parametrize("one", TEN, ids=lambda one: one.name)
def test_a_mutant_shows_and_is_gone_when_it_is_taken_out(lab: Planting, one: Edit) -> None:
    found = failures(lab, one)
    assert found, "no wrong node was written"
    file = found[0].reproducer
    assert file is not None
    assert Path(file).is_file()
    code, text = shown(lab, file, number_of(one))
    assert (code, "wrong: " in text) == (1, True), text
    code, text = shown(lab, file, 0)
    assert (code, "right" in text) == (0, True), text
