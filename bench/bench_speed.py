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
from typing import Any

import msgspec
import pytest

from pytest_kvquant.baseline_speed import StoredSpeed
from pytest_kvquant.engine.client import Engine, Worker
from pytest_kvquant.engine.environment import scrub
from pytest_kvquant.engine.worker import HOOK
from pytest_kvquant.floors import resolve_floors
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.model import read_model
from pytest_kvquant.numerics.rounds import RoundRules
from pytest_kvquant.report.result import Library
from pytest_kvquant.report.speed import title
from pytest_kvquant.session import EMBEDDED_MODEL
from pytest_kvquant.speed.climb import measure
from pytest_kvquant.speed.lanes import Account, Bed, lanes, sides
from pytest_kvquant.speed.plan import Plan
from pytest_kvquant.speed_run import EMBEDDED, RULES

PAIRS = (REFERENCE, Pair("q8_0", "q8_0"))
DEPTHS = (0, 2048, 4096)
FLOOR = 0.9
"""Of f16/f16 against itself."""

TURNS, SAMPLES = 5, 5
"""Of this plugin and llama-bench, one after the other."""

SAMPLE = 0.1
"""Seconds of a sample in repeated comparisons; half a second would make hours of them."""

DELAY = """
import time
from pytest_kvquant.engine import timing

_decode = timing.Lane._decode
_make = timing.Bench.__init__


def _made(self, *arguments, **fields):
    _make(self, *arguments, **fields)
    self.lanes[0].slow = SLOW


def _slow(self, batch):
    begun = time.perf_counter()
    _decode(self, batch)
    self.llama.llama_synchronize(self.context.pointer)
    until = begun + (time.perf_counter() - begun) * getattr(self, "slow", 1.0)
    while time.perf_counter() < until:
        pass


timing.Bench.__init__ = _made
timing.Lane._decode = _slow
"""


def make_bed(
    model: Path, *, threads: int, lib: Path | None = None, hook: Path | None = None
) -> Bed:
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
    return Bed(
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
    )


def brief(rules: RoundRules = RULES["pr"]) -> Plan:
    """The embedded model's tests, in longer samples."""
    return Plan(
        depths=(0,), prompt=EMBEDDED.prompt, generate=EMBEDDED.generate, seconds=SAMPLE,
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


def count_verdicts(bed: Bed, repetitions: int) -> Counter[str]:
    """Verdicts of f16/f16 against itself, by test."""
    seen: Counter[str] = Counter()
    for _ in range(repetitions):
        cell = measure(REFERENCE, brief(), bed)
        assert cell.message is None, cell.message
        seen.update(f"{test.kind} {test.verdict}" for test in cell.tests)
    return seen


@pytest.mark.timeout(3600)
def test_f16_against_itself_on_a_loaded_machine(benchmark: Any) -> None:
    """30 repetitions: no fail."""
    bed = make_bed(EMBEDDED_MODEL, threads=os.cpu_count() or 1)
    with loaded(3600):
        seen = benchmark.pedantic(count_verdicts, (bed, 30), rounds=1)
    print(f"\n30 × f16/f16 against itself, floor {FLOOR}, loaded machine: {dict(seen)}")
    assert not seen["pp fail"] + seen["tg fail"] + seen["pp cliff"] + seen["tg cliff"]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "loaded"])
def test_a_loss_ten_percent_beyond_the_floor(benchmark: Any, tmp_path: Path, busy: bool) -> None:
    """40 repetitions of each test: at least 95 % caught."""
    hook = tmp_path / "delay.py"
    hook.write_text(DELAY.replace("SLOW", str(1 / (FLOOR * 0.9))))
    bed = make_bed(EMBEDDED_MODEL, threads=os.cpu_count() or 1, hook=hook)
    with loaded(3600 if busy else 0):
        seen = benchmark.pedantic(count_verdicts, (bed, 40), rounds=1)
    caught = {kind: seen[f"{kind} fail"] + seen[f"{kind} cliff"] for kind in ("pp", "tg")}
    print(f"\nratio {FLOOR * 0.9:.2f} under a floor of {FLOOR}, 40 times: {dict(seen)}")
    assert min(caught.values()) >= 38


def test_wall_over_library_time(benchmark: Any) -> None:
    """Samples of half a second: wall time at most 1.1 × the time inside library calls."""
    bed = make_bed(EMBEDDED_MODEL, threads=1)
    plan = msgspec.structs.replace(brief(), prompt=512, generate=128, seconds=0.5, depths=(0, 512))
    cell = benchmark.pedantic(measure, (PAIRS[1], plan, bed), rounds=1)
    print(
        f"\nwall {cell.wall:.1f} s, library {cell.library:.1f} s: {cell.wall / cell.library:.3f} "
        f"(target 1.1); prefilled {cell.prefilled}"
    )
    assert cell.wall <= 1.1 * cell.library


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_against_llama_bench(benchmark: Any, reference_model: list[str], pair: Pair) -> None:
    """pp512 and tg128 at depths 0, 2048, 4096: medians within 5 %.

    The two take turns, test by test, because the speed of a shared machine drifts by more than that
    within a minute. Beside the median stands the best, which other work on the machine slows least.
    """
    program = os.environ.get("KV_LLAMA_BIN")
    if not program:
        pytest.skip("KV_LLAMA_BIN does not name a llama-bench")
    model = Path(reference_model[reference_model.index("--kv-model") + 1])
    bed = make_bed(model, threads=1, lib=Path(program).resolve().parent)

    def take_turns(kind: str, count: int, depth: int) -> tuple[list[float], list[float]]:
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(TURNS):
            ours += _alone(bed, pair, kind, count, depth)
            theirs += _llama_bench(program, bed, pair, kind, count, depth)
        return ours, theirs

    lines = []
    for depth in DEPTHS:
        for kind, count in (("pp", 512), ("tg", 128)):
            ours, theirs = take_turns(kind, count, depth)
            middle = statistics.median(ours), statistics.median(theirs)
            lines.append(
                f"{pair} {title(kind, count, depth)}: {middle[0]:.0f} tok/s, llama-bench "
                f"{middle[1]:.0f}: {middle[0] / middle[1] - 1:+.1%} (target 5 %); "
                f"at their best {max(ours) / max(theirs) - 1:+.1%}"
            )
            print(f"\n{lines[-1]}", flush=True)
    benchmark.extra_info["against llama-bench"] = lines
    benchmark.pedantic(_alone, (bed, pair, "tg", 128, 0), rounds=1)


def _alone(bed: Bed, pair: Pair, kind: str, count: int, depth: int) -> list[float]:
    """tok/s of one test in a process of its own, as llama-bench does it."""
    side = sides(pair, bed)[0]
    with lanes((side,), depth + count, bed, Account()) as own:
        own.climb(depth)
        own.warm(kind, count, 0.001)
        return [1e9 * count / ns for ns in own.samples(kind, count, (0,) * SAMPLES)]


def _llama_bench(
    program: str, bed: Bed, pair: Pair, kind: str, count: int, depth: int
) -> list[float]:
    prompt, generate = (count, 0) if kind == "pp" else (0, count)
    ran = subprocess.run(
        [program, "-m", bed.model.path, "-p", str(prompt), "-n", str(generate), "-d", str(depth),
         "-t", str(bed.threads), "-fa", "1", "-ctk", pair.k, "-ctv", pair.v, "-r", str(SAMPLES),
         "-o", "json"],
        capture_output=True, text=True, check=True, env=bed.engine.environment.variables,
    )  # fmt: skip
    samples: list[float] = json.loads(ran.stdout)[0]["samples_ts"]
    return samples
