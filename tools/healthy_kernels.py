"""Healthy builds must pass: the checks of kernels on the embedded model and the zoo, seed by seed.

python -m tools.healthy_kernels K/V … [--models mini,gemma2-256|all] [--seeds 0-9]
    [--level standard] [--lib DIR] [--python PATH] [--known operations.divide,…]

``--known``: what [expect] would declare of every pair with a quantized K. A run is a model and a
seed with all pairs; what fails of it is printed. Exit code 1: some failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.budgets import resolve_budgets
from pytest_kvquant.checks.declared import as_declared
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.coverage_plan import level
from pytest_kvquant.quality.examiner import Examined, Examiner
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.zoo import store
from pytest_kvquant.zoo.known_faults import PLAIN
from pytest_kvquant.zoo.members import ALL, by_name

MINI = "mini"
CELLS, UBATCH = 512, 256


def main() -> int:
    """Examine, and say what fails."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("pairs", nargs="+")
    given.add_argument("--models", default=MINI)
    given.add_argument("--seeds", default="0-0")
    given.add_argument("--level", default="standard")
    given.add_argument("--lib")
    given.add_argument("--python", default=sys.executable)
    given.add_argument("--known", default="")
    asked = given.parse_args()
    names = [MINI, *(one.name for one in ALL)] if asked.models == "all" else asked.models.split(",")
    first, last = map(int, asked.seeds.split("-"))
    engine = Engine(
        python=asked.python, directory=asked.lib, environment=scrub(dict(os.environ), {}),
        timeout=300,
    )  # fmt: skip
    runs = healthy = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, last + 1):
            for name in names:
                begun = time.perf_counter()
                wrong = list(_wrong(name, engine, Path(folder), asked, seed))
                runs, healthy = runs + 1, healthy + (not wrong)
                taken = time.perf_counter() - begun
                _say(f"{name} seed {seed}: {'fails' if wrong else 'passes'}, {taken:.1f} s")
                for line in wrong:
                    _say(f"    {line}")
    _say(f"{healthy} of {runs} runs of {len(asked.pairs)} pairs pass")
    return int(healthy < runs)


def _wrong(
    name: str, engine: Engine, folder: Path, asked: argparse.Namespace, seed: int
) -> Iterator[str]:
    path = EMBEDDED_MODEL if name == MINI else store.file_of(by_name(name), folder)
    tokens = np.random.default_rng(seed).integers(5, 200, CELLS).astype(np.int32)
    subject = Examined(
        engine, read_model(path, hashed=False), 0, tokens, ubatch=UBATCH, threads=1 + seed % 2,
        seed=seed, reproducers=Path(tempfile.gettempdir()) / "kvquant-nodes",
    )  # fmt: skip
    examiner = Examiner(subject, level(asked.level, cells=CELLS, ubatch=UBATCH))
    known = frozenset(filter(None, asked.known.split(",")))
    for pair in map(Pair.parse, asked.pairs):
        found = examiner.examine(pair)
        if (found.problem or "").startswith("unsupported"):
            continue
        judged = Subject(
            pair=pair,
            cell=Cell(pair=str(pair), verdict="pass", kernels=found),
            budgets=resolve_budgets(pair, embedded=name == MINI, overrides={}),
            reference_kernels=examiner.examine(REFERENCE),
            declared=known if pair.k not in PLAIN else frozenset(),
        )
        for one in registry.checks_that_need("kernels"):
            check = one.decide(judged)
            if check is not None and as_declared(check, judged.declared).verdict != "pass":
                yield f"{pair} {check.name}: {check.verdict}: {check.text}"
    if REFERENCE not in map(Pair.parse, asked.pairs):
        examiner.forget(REFERENCE)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
