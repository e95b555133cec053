"""The speed protocol: against llama-bench, on a loaded machine, with a planted loss, its own cost.

``KV_LLAMA_BIN`` is a llama-bench; the libllama beside it is measured. ``KV_PYTHON`` is an
interpreter whose llama-cpp-python fits that build, if this one's does not.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from pytest_kvquant.config.floors import resolve_floors
from pytest_kvquant.config.speed_tests import SPEED_TESTS
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.rounds import RoundRules
from pytest_kvquant.results.library import Library
from pytest_kvquant.results.speed import title
from pytest_kvquant.session.speed_plan import RULES
from pytest_kvquant.speed.plan import SpeedPlan
from pytest_kvquant.speed.stored import StoredSpeed
from pytest_kvquant.speed.streams import Account, SpeedSetup, sides, streams
from pytest_kvquant.speed.timed_pairs import measure, measure_together

PAIRS = (REFERENCE, Pair("q8_0", "q8_0"))
DEPTHS = (0, 2048, 4096)
FLOOR = 0.9
"""Of f16/f16 against itself."""

THREADS = sorted({1, os.cpu_count() or 1})

TURNS, MOST_TURNS, SAMPLES = 3, 8, 5
"""Of this plugin and llama-bench, one after the other: undisturbed ones that are needed, most that
are taken for them, samples of each in a turn."""

STEADY = 0.9
"""A turn is undisturbed if both ran at this share of the speed of their best turn."""

AGREEMENT = 0.05

TOGETHER = 3
"""Pairs that share a process; a hook slows the first."""

SAMPLE = 0.1
"""Seconds of a sample in repeated comparisons; half a second would make hours of them."""

DELAY = """
import time
from pytest_kvquant.engine.child import stream, timing

_decode = stream.Stream._decode
_make = timing.Bench.__init__


def _made(self, *arguments, **fields):
    _make(self, *arguments, **fields)
    self.streams[0].slow = SLOW


def _slow(self, batch):
    begun = time.perf_counter()
    _decode(self, batch)
    self.llama.llama_synchronize(self.context.pointer)
    until = begun + (time.perf_counter() - begun) * getattr(self, "slow", 1.0)
    while time.perf_counter() < until:
        pass


timing.Bench.__init__ = _made
stream.Stream._decode = _slow
"""


def make_bed(
    model: Path, *, threads: int, lib: Path | None = None, hook: Path | None = None
) -> SpeedSetup:
    """What :func:`measure` needs, without a session around it."""
    configured = {HOOK: str(hook)} if hook else {}
    engine = Engine(
        python=os.environ.get("KV_PYTHON", sys.executable) if lib else sys.executable,
        directory=str(lib) if lib else None,
        environment=scrub(os.environ, configured),
        timeout=600,
    )
    with Worker(engine) as worker:
        library = msgspec.convert(worker.library(engine.directory, full=True), Library)
    return SpeedSetup(
        engine=engine,
        model=read_model(model),
        library=library,
        gpu_layers=-1,
        batch=2048,
        ubatch=512,
        threads=threads,
        memory_limit=None,
        floors=lambda pair, depth: resolve_floors(pair, depth, embedded=False, overrides={}),
        stored=StoredSpeed(),
        expected={},
        declared=lambda *_: False,
        options={},
    )


def brief(rules: RoundRules = RULES["pr"]) -> SpeedPlan:
    """The embedded model's tests, in longer samples."""
    return SpeedPlan(
        depths=(0,), tokens={one.name: one.embedded for one in SPEED_TESTS}, seconds=SAMPLE,
        rules=rules, confirm=True,
    )  # fmt: skip


def burn(until: float, seed: int) -> None:
    """Use a core, on and off, for seconds at a time."""
    chance = random.Random(seed)
    while time.time() < until:
        stop = time.time() + chance.uniform(0.05, 2)
        while time.time() < stop:
            pass
        time.sleep(chance.uniform(0.05, 2))


@contextmanager
def loaded(seconds: float) -> Iterator[None]:
    """Every core is used by another process, on and off."""
    context = multiprocessing.get_context("spawn")
    cores = range(os.cpu_count() or 1)
    others = [context.Process(target=burn, args=(time.time() + seconds, core)) for core in cores]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()
            other.join()


def count_verdicts(setup: SpeedSetup, repetitions: int) -> list[Counter[str]]:
    """Verdicts of f16/f16 against itself, so many of them in one process, each by test."""
    seen: list[Counter[str]] = [Counter() for _ in range(TOGETHER)]
    for _ in range(repetitions):
        cells = measure_together([REFERENCE] * TOGETHER, brief(), setup)
        for own, cell in zip(seen, cells, strict=True):
            assert cell.message is None, cell.message
            own.update(f"{test.kind} {test.verdict}" for test in cell.tests)
    return seen


def alarms(seen: Counter[str], kind: str) -> int:
    """How many verdicts of a test were red."""
    return seen[f"{kind} fail"] + seen[f"{kind} cliff"]


@pytest.mark.timeout(3600)
def test_f16_against_itself_on_a_loaded_machine(benchmark: Any) -> None:
    """30 repetitions of each: no fail."""
    setup = make_bed(EMBEDDED_MODEL, threads=os.cpu_count() or 1)
    with loaded(3600):
        seen = benchmark.pedantic(count_verdicts, (setup, 30), rounds=1)
    print(f"\n30 × f16/f16 against itself, floor {FLOOR}, loaded machine: {seen}")
    assert not any(alarms(own, kind) for own in seen for kind in ("pp", "tg"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "loaded"])
def test_a_loss_ten_percent_beyond_the_floor(benchmark: Any, tmp_path: Path, busy: bool) -> None:
    """40 repetitions of each test: at least 95 % caught, and those beside it pass."""
    hook = tmp_path / "delay.py"
    hook.write_text(DELAY.replace("SLOW", str(1 / (FLOOR * 0.9))))
    setup = make_bed(EMBEDDED_MODEL, threads=os.cpu_count() or 1, hook=hook)
    with loaded(3600 if busy else 0):
        seen = benchmark.pedantic(count_verdicts, (setup, 40), rounds=1)
    slowed, *others = seen
    print(f"\nratio {FLOOR * 0.9:.2f} under a floor of {FLOOR}, 40 times: {seen}")
    assert min(alarms(slowed, kind) for kind in ("pp", "tg")) >= 38
    assert not any(alarms(own, kind) for own in others for kind in ("pp", "tg"))


def test_wall_over_library_time(benchmark: Any) -> None:
    """Samples of half a second: wall time at most 1.1 × the time inside library calls."""
    setup = make_bed(EMBEDDED_MODEL, threads=1)
    plan = msgspec.structs.replace(
        brief(), tokens={"pp": 512, "tg": 128}, seconds=0.5, depths=(0, 512)
    )
    cell = benchmark.pedantic(measure, (PAIRS[1], plan, setup), rounds=1)
    print(
        f"\nwall {cell.wall:.1f} s, library {cell.library:.1f} s: {cell.wall / cell.library:.3f} "
        f"(target 1.1); prefilled {cell.prefilled}"
    )
    assert cell.wall <= 1.1 * cell.library


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("threads", THREADS, ids=lambda count: f"{count}-threads")
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_against_llama_bench(
    benchmark: Any, reference_model: list[str], pair: Pair, threads: int
) -> None:
    """pp512 and tg128 at depths 0, 2048, 4096: medians within 5 %.

    This plugin as in a run: f16/f16 beside the cell, one sweep, its own environment. llama-bench as
    a user starts it: a process for each test, the shell's environment. They take turns, because the
    speed of a shared machine drifts by more than 5 % within a minute.
    """
    program = os.environ.get("KV_LLAMA_BIN")
    if not program:
        pytest.skip("KV_LLAMA_BIN does not name a llama-bench")
    model = Path(reference_model[reference_model.index("--kv-model") + 1])
    setup = make_bed(model, threads=threads, lib=Path(program).resolve().parent)
    compared = benchmark.pedantic(_compare, (Path(program), setup, pair), rounds=1)
    benchmark.extra_info["against llama-bench"] = [one.text for one in compared]
    assert [one.text for one in compared if not one.holds] == []


class Turn(NamedTuple):
    """Median tok/s of this plugin's samples, and of llama-bench's right after them."""

    ours: float
    theirs: float


class Comparison(NamedTuple):
    """One test, by all turns that were taken for it."""

    name: str
    turns: list[Turn]

    @property
    def undisturbed(self) -> list[Turn]:
        """Turns in which both ran at nearly the speed of their best turn."""
        ours = STEADY * max((turn.ours for turn in self.turns), default=0)
        theirs = STEADY * max((turn.theirs for turn in self.turns), default=0)
        return [turn for turn in self.turns if turn.ours >= ours and turn.theirs >= theirs]

    @property
    def difference(self) -> float:
        """Of the medians, as a share of llama-bench's."""
        ours, theirs = zip(*self.undisturbed or self.turns, strict=True)
        return float(statistics.median(ours) / statistics.median(theirs) - 1)

    @property
    def decided(self) -> bool:
        """Whether enough turns were undisturbed."""
        return len(self.undisturbed) >= TURNS

    @property
    def holds(self) -> bool:
        """Whether the figures agree."""
        return self.decided and abs(self.difference) <= AGREEMENT

    @property
    def text(self) -> str:
        """The figures in words."""
        ours, theirs = zip(*self.undisturbed or self.turns, strict=True)
        return (
            f"{self.name}: {statistics.median(ours):.0f} tok/s, llama-bench "
            f"{statistics.median(theirs):.0f}: {self.difference:+.1%} (target {AGREEMENT:.0%}; "
            f"{len(self.undisturbed)} of {len(self.turns)} turns undisturbed, {TURNS} needed)"
        )


def _compare(program: Path, setup: SpeedSetup, pair: Pair) -> list[Comparison]:
    """Every test at every depth, in turn with llama-bench."""
    found = []
    with streams(sides(pair, setup), max(DEPTHS) + 512, setup, [Account()]) as worker:
        for depth in DEPTHS:
            worker.extend_to(depth, (0,))
            for kind, count in (("pp", 512), ("tg", 128)):
                name = f"{pair} {title(kind, count, depth)} -t {setup.threads}"
                one = Comparison(name, [])
                while not one.decided and len(one.turns) < MOST_TURNS:
                    worker.warm(kind, count, 0.001, (0,))
                    ours = worker.samples(kind, count, (0,) * SAMPLES)
                    theirs = _llama_bench(program, setup, pair, kind, count, depth)
                    speed = statistics.median(1e9 * count / ns for ns in ours)
                    one.turns.append(Turn(speed, statistics.median(theirs)))
                print(f"\n{one.text}", flush=True)
                found.append(one)
    return found


def _llama_bench(
    program: Path, setup: SpeedSetup, pair: Pair, kind: str, count: int, depth: int
) -> list[float]:
    """tok/s of each of llama-bench's samples, in the shell's own environment."""
    prompt, generate = (count, 0) if kind == "pp" else (0, count)
    ran = subprocess.run(
        [program, "-m", setup.model.path, "-p", str(prompt), "-n", str(generate), "-d", str(depth),
         "-t", str(setup.threads), "-fa", "1", "-ctk", pair.k, "-ctv", pair.v, "-r", str(SAMPLES),
         "-o", "json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    samples: list[float] = json.loads(ran.stdout)[0]["samples_ts"]
    return samples
