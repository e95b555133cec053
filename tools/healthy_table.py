"""KL measured over KL emulated, pair by pair: the table of docs/healthy.md.

python -m tools.healthy_table MODEL.gguf TEXT CHUNKS K/V … [--lib DIR] [--python PATH]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_kvquant.checks.healthy import KL, ratio_gate
from pytest_kvquant.engine.parent.engine import BatchShape, Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.kernels import compare_rows
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.quality.healthy import heads_by_layer

SHAPE = BatchShape(ctx=512, scored=256, sequences=1, batch=512, ubatch=512, threads=2)
Logits = list[npt.NDArray[np.float32]]


def main() -> None:
    """Measure and print a row per pair."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("model")
    given.add_argument("text")
    given.add_argument("chunks", type=int)
    given.add_argument("pairs", nargs="+")
    given.add_argument("--lib")
    given.add_argument("--python", default=sys.executable)
    asked = given.parse_args()
    environment = scrub(dict(os.environ), {})
    engine = Engine(python=asked.python, directory=asked.lib, environment=environment, timeout=600)
    heads = heads_by_layer(read_model(Path(asked.model)))
    with Worker(engine) as worker:
        worker.library(asked.lib)
        told = worker.model(asked.model, gpu_layers=0)
        chunks = _chunks(worker, Path(asked.text), asked.chunks, told)
        worker.open(REFERENCE, SHAPE)
        reference = _logits(worker, chunks, told["vocabulary"])
        for pair in map(Pair.parse, asked.pairs):
            worker.open_healthy(_sides(engine, asked, pair), heads, SHAPE)
            healthy = _kl(reference, _logits(worker, chunks, told["vocabulary"]))
            with Worker(engine) as own:
                own.library(asked.lib)
                own.model(asked.model, gpu_layers=0)
                own.open(pair, SHAPE)
                measured = _kl(reference, _logits(own, chunks, told["vocabulary"]))
            _tell(pair, measured, healthy)


def _sides(engine: Engine, asked: argparse.Namespace, pair: Pair) -> list:  # type: ignore[type-arg]
    with Worker(engine) as worker:
        worker.library(asked.lib)
        worker.model(asked.model, gpu_layers=0)
        return worker.stored(pair, SHAPE)


def _chunks(worker: Worker, text: Path, count: int, told: dict[str, Any]) -> npt.NDArray[np.int32]:
    tokens = worker.tokenize(text.read_bytes()[: 16 * SHAPE.ctx * count])
    chunks = tokens[: SHAPE.ctx * count].reshape(count, SHAPE.ctx).copy()
    if told["bos"] is not None:
        chunks[:, 0] = told["bos"]
    return chunks


def _logits(worker: Worker, chunks: npt.NDArray[np.int32], vocabulary: int) -> Logits:
    found: dict[int, Logits] = {}
    for block in worker.score(chunks, SHAPE, vocabulary):
        found.setdefault(block.chunk, []).append(block.logits.copy())
    return [np.concatenate(blocks) for _, blocks in sorted(found.items())]


def _kl(reference: Logits, other: Logits) -> npt.NDArray[np.float64]:
    none = np.zeros(SHAPE.scored, np.int32)
    pairs = zip(reference, other, strict=True)
    return np.array([compare_rows(a, b, none[: len(a)]).kl.mean() for a, b in pairs])


def _tell(pair: Pair, measured: npt.NDArray[np.float64], healthy: npt.NDArray[np.float64]) -> None:
    gate = ratio_gate("kl_ratio", measured, healthy, Rules(cap=len(measured)), KL)
    scatter = float(np.std(np.log(measured / healthy)))
    low = "–" if gate.low is None else f"{gate.low:.2f}"
    high = "–" if gate.high is None else f"{gate.high:.2f}"
    sys.stdout.write(
        f"| {pair} | {healthy.mean():.3g} | {measured.mean():.3g} | "
        f"{measured.mean() / healthy.mean():.3f} | {low} to {high} | {scatter:.0%} | "
        f"{gate.verdict} at {gate.decided_at} |\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
