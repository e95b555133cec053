"""Plants a fault into the real engine, examines the pair, and says which tests fail."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from faults.operations.catalogue import MINI, Planted
from faults.operations.naming import named
from pytest_kvquant.checks import registry
from pytest_kvquant.checks.budgets import resolve_budgets
from pytest_kvquant.checks.located import Located, locate
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.engine.parent.engine import BatchShape, Engine
from pytest_kvquant.engine.parent.kept import SteadinessCheck
from pytest_kvquant.engine.parent.workers import Isolation, Workers
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.coverage_plan import level
from pytest_kvquant.quality.examiner import Examined, Examiner
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.kernels import Examination
from pytest_kvquant.zoo import store
from pytest_kvquant.zoo.members import by_name

CELLS = 512

BETWEEN = ("cache operations", "slots")
"""Corners that only scenarios reach; all others are left to the ascent alone."""


class Caught(NamedTuple):
    """What became of a fault."""

    fault: Planted
    hits: int
    """How often it was alive."""
    tests: tuple[str, ...]
    """That fail."""
    text: str
    seconds: float
    located: Located | None = None
    """What the diagnosis names."""

    @property
    def diagnosis(self) -> str:
        """``right``, ``wrong`` or ``unexplained``."""
        return named(self.fault, self.located)


class Planting:
    """Clean examinations of f16, each made once; and faulty ones beside them."""

    def __init__(
        self,
        folder: Path,
        seed: int = 0,
        library: Path | None = None,
        threads: int = 1,
        isolation: Isolation | None = None,
    ) -> None:
        self.folder, self.seed, self.library, self.threads = folder, seed, library, threads
        self.isolation = isolation
        self._clean: dict[str, Examiner] = {}
        self.reproducers: Path | None = None
        """Where wrong nodes are written; ``None``: nowhere."""

    def examiner(self, model: str, hook: dict[str, str], *, scenarios: bool) -> Examiner:
        path = EMBEDDED_MODEL
        if model != MINI:
            path = store.file_of(by_name(model), self.folder)
        found = read_model(path)
        environment = scrub(dict(os.environ), hook)
        engine = Engine(
            python=sys.executable,
            directory=str(self.library) if self.library else None,
            environment=environment,
            timeout=120,
        )
        tokens = np.random.default_rng(5).integers(5, 200, CELLS).astype(np.int32)
        subject = Examined(engine, found, 0, tokens, threads=self.threads, seed=self.seed,
            workers=self.workers(engine, path, tokens),
            reproducers=self.reproducers,
        )  # fmt: skip
        chosen = level("standard", cells=CELLS, ubatch=CELLS)
        return Examiner(subject, chosen._replace(scenarios=scenarios))

    def workers(self, engine: Engine, model: Path, tokens: np.ndarray) -> Workers | None:
        """Whom examiners hire; ``None``: a process is started for each pair."""
        if self.isolation is None:
            return None
        workers = Workers(engine, str(model), 0, self.isolation)
        shape = BatchShape(ctx=64, scored=31, sequences=1, batch=64, ubatch=64, threads=1)
        workers.check = SteadinessCheck(tokens[:64], shape)
        return workers

    def clean(self, model: str) -> Examiner:
        if model not in self._clean:
            self._clean[model] = self.examiner(model, {}, scenarios=True)
            self._clean[model].examine(REFERENCE)
        return self._clean[model]

    def plant(self, fault: Planted) -> Caught:
        hits = self.folder / "hits"
        hits.unlink(missing_ok=True)
        pair = Pair.parse(fault.pair)
        faulty = self.spoilt(fault, scenarios=fault.corner in BETWEEN)
        clean = self.clean(fault.model)
        if pair != REFERENCE:
            faulty.take_reference(clean)
        made = checks_of(pair, faulty.examine(pair), clean.examine(REFERENCE))
        failing = {one.name: one.text for one in made if one.verdict == "fail"}
        cell = Cell(pair=fault.pair, verdict="fail", kernels=faulty.examine(pair))
        located = locate(msgspec.structs.replace(cell, checks=tuple(made)))
        count = int(hits.read_text()) if hits.exists() else 0
        seconds = faulty.examine(pair).seconds
        told = "; ".join(failing.values())
        return Caught(fault, count, tuple(failing), told, seconds, located)

    def spoilt(self, fault: Planted, *, scenarios: bool) -> Examiner:
        """An examiner in whose workers the fault lives."""
        hook = {
            HOOK: str(Path(__file__).parent / "hook.py"),
            "KVQUANT_OPERATION_FAULT": json.dumps(fault._asdict()),
            "KVQUANT_OPERATION_HITS": str(self.folder / "hits"),
        }
        return self.examiner(fault.model, hook, scenarios=scenarios)

    def failing(self, pair: Pair, examiner: Examiner, reference: Examination) -> dict[str, str]:
        """Checks that fail for a pair, and what they say."""
        made = checks_of(pair, examiner.examine(pair), reference)
        return {check.name: check.text for check in made if check.verdict == "fail"}


def checks_of(pair: Pair, found: Examination, reference: Examination) -> list:
    """The checks of an examination, as a run makes them."""
    cell = Cell(pair=str(pair), verdict="pass", kernels=found)
    subject = Subject(
        pair=pair,
        cell=msgspec.structs.replace(cell),
        budgets=resolve_budgets(pair, embedded=False, overrides={}),
        reference_kernels=reference,
    )
    made = [one.decide(subject) for one in registry.checks_that_need("kernels")]
    return [check for check in made if check is not None]
