"""What the cache holds, asked in real processes, healthy and with planted faults."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.run import run
from support.tinygguf import Tiny, write

from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.engine.parent.engine import BatchShape, Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.diagnosis import Diagnosis
from pytest_kvquant.session.diagnosing import Prober

PLANTS = Path(__file__).parents[1] / "support" / "cache_faults.py"

TYPES = ("f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "f16")
"""Every type that upstream's command line offers for a cache."""

SHAPES = {
    "64 wide, 2:1": Tiny(n_vocab=300, n_ff=64, n_layer=3, n_head=4, n_head_kv=2, head_dim=64),
    "128 wide, 8:1": Tiny(n_vocab=300, n_ff=64, n_layer=3, n_head=8, n_head_kv=1, head_dim=128),
    "128 wide, 2:1": Tiny(n_vocab=300, n_ff=64, n_layer=3, n_head=4, n_head_kv=2, head_dim=128),
    "64 wide, 8:1": Tiny(n_vocab=300, n_ff=64, n_layer=3, n_head=16, n_head_kv=2, head_dim=64),
}


SHORT = {"chunks": 3, "decode": 0, "trajectory": 0}


class Bench(NamedTuple):
    """A model with a probe of its own."""

    task: Task
    prober: Prober

    def planted(self, fault: dict[str, Any]) -> Prober:
        """The same probe, with a fault in every cell but f16/f16."""
        toggles = {HOOK: str(PLANTS), "KVQUANT_CACHE_FAULT": json.dumps(fault)}
        environment = scrub(dict(os.environ), toggles)
        engine = Engine(environment=environment, timeout=120)
        planted = Prober(self.task._replace(engine=engine), self.prober.model, "always")
        planted.share(self.prober)
        return planted


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    folder = tmp_path_factory.mktemp("models")
    made: dict[str, Bench] = {}

    def make(name: str) -> Bench:
        if name not in made:
            path = write(folder / f"{len(made)}.gguf", SHAPES[name])
            tokens = np.random.default_rng(1).integers(1, 300, (1, 160)).astype(np.int32)
            task = Task(
                engine=Engine(environment=scrub(dict(os.environ), {}), timeout=120),
                model=str(path),
                gpu_layers=0,
                vocabulary=300,
                shape=BatchShape(ctx=256, scored=8, sequences=1, batch=256, ubatch=256, threads=1),
                chunks=tokens,
                rules=Rules(cap=1),
            )
            made[name] = Bench(task, Prober(task, read_model(path), "always"))
        return made[name]

    return make


@pytest.mark.parametrize("name", SHAPES)
def test_healthy_cells_of_all_types_raise_no_suspicion(
    name: str, bench: Callable[[str], Bench]
) -> None:
    task, prober = bench(name)
    with Worker(task.engine) as worker:
        task.open_cell(worker, Pair("f16", "f16"))
        for shift, k in enumerate(TYPES):
            pair = Pair(k, TYPES[shift - 3])
            worker.open(pair, task.shape)
            diagnosis = prober.short(pair, worker)
            assert diagnosis is not None
            assert diagnosis.verdict == "healthy", (pair, diagnosis.sentence)
            assert not any(one.wrong or one.pattern for one in diagnosis.figures)
            assert {one.path for one in diagnosis.figures} == {"prefill", "decode"}
            assert all(one.rotation is not None for one in diagnosis.figures)


@pytest.mark.parametrize("pair", ["q8_0/q8_0", "q4_0/q4_0", "f16/q5_1", "iq4_nl/bf16"])
def test_a_healthy_cell_at_length_is_explained_by_its_rounding(
    pair: str, bench: Callable[[str], Bench]
) -> None:
    diagnosis = bench("64 wide, 2:1").prober.long(Pair.parse(pair))
    assert diagnosis is not None
    assert diagnosis.verdict == "rounding", diagnosis.sentence
    strayed = [one.nmse / one.expected for one in diagnosis.figures if one.expected]
    assert max(strayed) < 3


class Planted(NamedTuple):
    """A fault, and what must be said of it."""

    name: str
    kernel: str
    side: str
    path: str
    edit: str
    words: str
    """Part of the sentence."""
    value: Any = None
    layers: tuple[int, ...] = (0,)
    first: int = 0
    """Position from which on it shows."""
    pair: str = "q8_0/q4_0"
    shape: str = "64 wide, 2:1"


FAULTS = [
    Planted("K halved", "quantizer", "K", "both", "scale", "0.5 times", 0.5),
    Planted("V 3 % too large by decode", "quantizer", "V", "decode", "scale", "1.03 times", 1.03),
    Planted("both scaled", "quantizer", "KV", "both", "scale", "0.8 times", 0.8, pair="q5_1/q5_1"),
    Planted("a sign in K", "quantizer", "K", "prefill", "sign", "in block 1 of head 0", 1),
    Planted("a sign in V", "quantizer", "V", "decode", "sign", "opposite sign in block 0", 2),
    Planted("a sign at 8:1", "quantizer", "K", "both", "sign", "in block 3", 3,
            shape="128 wide, 8:1"),
    Planted("K one block off", "quantizer", "K", "both", "shifted", "1 block back"),
    Planted("V one block off", "quantizer", "V", "prefill", "shifted", "1 block back",
            shape="128 wide, 2:1"),
    Planted("K heads exchanged", "quantizer", "K", "decode", "exchanged", "1 head"),
    Planted("V heads exchanged", "quantizer", "V", "both", "exchanged", "1 head"),
    Planted("one head of V", "quantizer", "V", "both", "head_mixed", "in head 1, by both"),
    Planted("K beyond a position", "quantizer", "K", "prefill", "sign",
            "from position 100 on, by prefill only: look at set-rows for q8_0 with more than 100 "
            "tokens", 0, first=100),
    Planted("V beyond a position", "quantizer", "V", "decode", "zero", "from position 120 on",
            first=120),
    Planted("every second block", "quantizer", "K", "prefill", "second_blocks",
            "in every second block from position 64 on", first=64),
    Planted("K row taken from its neighbour", "quantizer", "K", "prefill", "later_row",
            "1 position further"),
    Planted("K zeroed", "quantizer", "K", "both", "zero", "of layer 0 are zero"),
    Planted("V of a later layer zeroed", "quantizer", "V", "prefill", "zero",
            "of layer 2 are zero", layers=(2,)),
    Planted("K of a later layer halved", "quantizer", "K", "decode", "scale", "of layer 1 are 0.",
            0.5, layers=(1,)),
    Planted("another type in K", "quantizer", "K", "both", "other_type", "quantized as iq4_nl",
            "iq4_nl", pair="q4_0/q8_0"),
    Planted("another type in V", "quantizer", "V", "decode", "other_type", "quantized as iq4_nl",
            "iq4_nl"),
    Planted("K not rotated", "quantizer", "K", "both", "unrotated", "are not rotated", 64),
    Planted("V not rotated", "quantizer", "V", "prefill", "unrotated", "are not rotated", 64),
    Planted("half of V read as zero by decode", "attention", "V", "decode", "half", "one token"),
    Planted("half of V read as zero by prefill", "attention", "V", "prefill", "half", "by prefill"),
    Planted("heads of K exchanged on reading", "attention", "K", "both", "exchanged", "both paths"),
    Planted("K of layer 1 read wrongly", "attention", "K", "decode", "half", "up to layer 1",
            layers=(1,), pair="q8_0/q8_0"),
    Planted("V of the last layer read wrongly", "attention", "V", "both", "shifted", "the logits",
            layers=(2,), pair="q8_0/q8_0"),
]  # fmt: skip


@pytest.mark.parametrize("planted", FAULTS, ids=lambda planted: planted.name)
def test_planted_faults_are_named(planted: Planted, bench: Callable[[str], Bench]) -> None:
    diagnosis = ask(planted, bench(planted.shape))
    assert diagnosis.verdict == "suspect", diagnosis.sentence
    assert len(diagnosis.suspects) == 1, diagnosis.sentence
    suspect = diagnosis.suspects[0]
    side = planted.side if planted.kernel == "quantizer" and len(planted.side) == 1 else "both"
    named = (suspect.kernel, suspect.side, suspect.path, suspect.layers)
    assert named == (planted.kernel, side, planted.path, planted.layers), suspect.sentence
    assert planted.words in suspect.sentence


def ask(planted: Planted, bench: Bench) -> Diagnosis:
    fault = describe(planted, SHAPES[planted.shape].n_head_kv)
    diagnosis = bench.planted(fault).long(Pair.parse(planted.pair))
    assert diagnosis is not None
    return diagnosis


def describe(planted: Planted, heads: int) -> dict[str, Any]:
    return {
        "kernel": planted.kernel,
        "side": planted.side,
        "path": planted.path,
        "layers": list(planted.layers),
        "edit": planted.edit,
        "value": planted.value,
        "from": planted.first,
        "heads": heads,
    }


def test_a_run_fails_the_cell_and_names_the_suspect(tmp_path: Path) -> None:
    fault = json.dumps(describe(FAULTS[0], 2))
    hook = (
        "import os, runpy\n"
        f"os.environ['KVQUANT_CACHE_FAULT'] = {fault!r}\n"
        f"runpy.run_path({str(PLANTS)!r})\n"
    )
    cell = run(tmp_path, "q8_0/q4_0", hook=hook, probe="always", **SHORT)["q8_0/q4_0"]
    contents = next(check for check in cell.checks if check.name == "contents")
    assert (cell.verdict, contents.verdict) == ("fail", "fail")
    assert cell.diagnosis is not None
    assert "K rows of layer 0 are 0.5" in cell.diagnosis.sentence
    assert contents.figure is not None
    assert contents.limit is not None
    assert contents.figure > contents.limit


@pytest.mark.parametrize(("probe", "figures"), [("always", True), ("fail", False)])
def test_a_cell_that_does_not_fail_carries_figures_without_words(
    probe: str, figures: bool, tmp_path: Path
) -> None:
    cell = run(tmp_path, "q8_0/q8_0", probe=probe, **SHORT)["q8_0/q8_0"]
    assert cell.verdict != "fail"
    assert any(check.name == "contents" for check in cell.checks) is figures
    assert (cell.diagnosis is not None) is figures
    if cell.diagnosis is not None:
        assert cell.diagnosis.verdict == "healthy"
        assert {(one.layer, one.side, one.path) for one in cell.diagnosis.figures} == {
            (layer, side, path)
            for layer in range(4)
            for side in "KV"
            for path in ("prefill", "decode")
        }
