"""Faults that cost 4, 2 and 1.5 times what a healthy cell does fail in ``pr``, with no budget.

On kvq-ref-15m, where budgets of another model let them pass. ``-s`` prints the table.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from faults import weights
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.session.observer import Listener
from pytest_kvquant.session.run import Session

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

TARGETS = (4.0, 2.0, 1.5)
NEAR = 0.12
"""Share by which a planted fault may miss its target and still be of its kind."""


class Planted(NamedTuple):
    """A fault, where it is planted, and a dose that is plainly seen."""

    name: str
    text: str
    pair: str
    pilot: float


FAULTS = (
    Planted("noisy", "noise on K and V", "q8_0/q8_0", 0.08),
    Planted("v_scale", "V too large", "q8_0/q8_0", 0.06),
    Planted("noisy", "noise on K and V", "q4_0/q4_0", 0.25),
)


class Bench:
    """Runs with planted faults over one store, so that f16 and emulation are computed once."""

    def __init__(self, shared: Path, folder: Path) -> None:
        self._folder = folder
        self.model = shared / "models" / "kvq-ref-15m.q8_0.gguf"
        self.corpus = shared / "corpora" / "wikitext-2.test.txt"
        if not (self.model.is_file() and self.corpus.is_file()):
            pytest.skip("kvq-ref-15m or wikitext-2 is not in ../shared")

    def run(self, planted: Planted, dose: float, chunks: int | None = None) -> Cell:
        """The cell as ``pr`` measures it, its kernels not examined: the ratio alone has to see."""
        plan = {"name": planted.name, "dose": dose, "heads": weights.kv_heads(self.model)}
        hook = {HOOK: str(Path(__file__).parent / "hook.py"), "KVQUANT_FAULT": json.dumps(plan)}
        settings = Settings(
            model=self.model, corpus=(str(self.corpus),), pairs=(planted.pair,), chunks=chunks,
            store=self._folder, environment=hook, decode=0, trajectory=0, recall=0,
            coverage="off", probe="off", fail_fast=True,
        )  # fmt: skip
        return Session(settings, dict(os.environ), Listener()).measure(Pair.parse(planted.pair))


@pytest.fixture(scope="module")
def bench(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(shared, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def page() -> Iterator[list[str]]:
    lines = [
        "| pair | fault | dose | KL over healthy | chunks | gates that fail |",
        "|---|---|---|---|---|---|",
    ]
    yield lines
    print("\n" + "\n".join(lines))


def ratio_of(cell: Cell) -> Gate:
    return next(gate for gate in cell.gates if gate.name == "kl_ratio")


@pytest.mark.parametrize("planted", FAULTS, ids=lambda one: f"{one.name}-{one.pair}")
def test_faults_fail_by_their_ratio_alone(planted: Planted, bench: Bench, page: list[str]) -> None:
    seen = ratio_of(bench.run(planted, planted.pilot, chunks=4)).figure
    for target in TARGETS:
        # what a small fault adds grows with the square of its dose
        dose = planted.pilot * math.sqrt((target - 1) / (seen - 1))
        cell = bench.run(planted, dose)
        gate = ratio_of(cell)
        by = [one for one in cell.gates if one.question == "kernel" and one.verdict == "fail"]
        chunks = min((one.decided_at or 99 for one in by), default=None)
        page.append(
            f"| {planted.pair} | {planted.text} | {dose:.2g} | {gate.figure:.2f} | {chunks} | "
            f"{', '.join(one.name for one in by)} |"
        )
        assert gate.figure == pytest.approx(target, rel=NEAR)
        assert by
        assert (cell.kernel, cell.fitness) == ("fail", "not judged")
