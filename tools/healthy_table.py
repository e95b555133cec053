"""KL measured over KL emulated: model × type × build, the table of docs/healthy-table.md.

``python -m tools.healthy_table`` measures what docs/healthy-table.json does not have yet, of all
models and builds that are here, pair by pair, and writes both files; it can be stopped at any
time. A second build: ``--lib DIR --python PATH --name NAME``. ``--only MODEL``, ``--pairs K/V,…``
and ``--chunks N`` choose; ``--again`` measures what is there, too.

Models: the embedded one, kvq-ref-15m of ../shared, the checkpoints of ``make real``
(``KVQUANT_REAL_MODELS``), two members of the zoo. The text is prose of the package, as long as it
goes, or wikitext-2 of ../shared.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_kvquant.checks.healthy import kl_gate, off_by_little
from pytest_kvquant.data import DATA, EMBEDDED_MODEL
from pytest_kvquant.engine.messages.model import ModelLoaded
from pytest_kvquant.engine.parent.engine import BatchShape, Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.kernels import compare_rows
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.quality.healthy import DRAWS, heads_by_layer
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.zoo import store
from pytest_kvquant.zoo.members import by_name
from tools.kept_rows import read_rows, write_rows
from tools.real_models import GEMMA3, SMOLLM2

ROOT = Path(__file__).parents[1]
KEPT, PAGE = ROOT / "docs" / "healthy-table.json", ROOT / "docs" / "healthy-table.md"
SHARED = ROOT.parent / "shared"
SHAPE = BatchShape(ctx=512, scored=256, sequences=1, batch=512, ubatch=512, threads=2)
UPSTREAM = ("q8_0/q8_0", "q5_1/q5_1", "q4_0/q4_0", "f16/q4_0", "q8_0/q4_0")
FORK = ("q8_0/q8_0", "q8_0/turbo4", "turbo4/turbo4", "turbo3/turbo3", "turbo2/turbo2")
HEAD = (
    "| model | pair | chunks | KL emulated | KL measured | ratio | interval | scatter | verdict |\n"
    "|---|---|--:|--:|--:|--:|---|--:|---|\n"
)
Logits = list[npt.NDArray[np.float32]]


class Row(msgspec.Struct, frozen=True):
    """One pair of one model and build."""

    model: str
    build: str
    pair: str
    measured: tuple[float, ...]
    """KL per chunk, nats."""
    emulated: tuple[float, ...]
    """Of the healthy cell, nats."""
    draws: tuple[tuple[float, ...], ...] = ()
    """The same with other roundings that are as likely, where the cell is off by little."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Build, model, pair."""
        return self.build, self.model, self.pair


class Subject(NamedTuple):
    """A model that is here, and its text."""

    name: str
    path: Path
    text: Path
    chunks: int


def subjects(folder: Path) -> Iterator[Subject]:
    """Models that are here, the quick ones first."""
    wikitext = SHARED / "corpora" / "wikitext-2.test.txt"
    text = wikitext if wikitext.is_file() else DATA / "corpus.txt"
    yield Subject("embedded", EMBEDDED_MODEL, DATA / "corpus.txt", 16)
    reference = SHARED / "models" / "kvq-ref-15m.q8_0.gguf"
    if reference.is_file():
        yield Subject("kvq-ref-15m", reference, text, 8)
    for name in ("qwen2-128", "phi3-96"):
        yield Subject(f"zoo {name}", store.file_of(by_name(name), folder), text, 8)
    real = Path(os.environ.get("KVQUANT_REAL_MODELS", ROOT / ".venv-real")) / "models"
    for title, checkpoint in (("SmolLM2-135M", SMOLLM2), ("Gemma 3 270M", GEMMA3)):
        if (real / checkpoint.file).is_file():
            yield Subject(title, real / checkpoint.file, text, 8)


def main() -> None:
    """Measure what is missing, and write both files after every pair."""
    given = argparse.ArgumentParser(prog="python -m tools.healthy_table", description=__doc__)
    given.add_argument("--lib")
    given.add_argument("--python", default=sys.executable)
    given.add_argument("--name", default="upstream llama.cpp", help="of the build, in the table")
    given.add_argument("--only", default="")
    given.add_argument("--pairs", default="")
    given.add_argument("--chunks", type=int)
    given.add_argument("--again", action="store_true")
    asked = given.parse_args()
    usual = FORK if asked.lib else UPSTREAM
    pairs = [Pair.parse(one) for one in (asked.pairs.split(",") if asked.pairs else usual)]
    environment = scrub(dict(os.environ), {})
    engine = Engine(python=asked.python, directory=asked.lib, environment=environment, timeout=600)
    rows = {row.key: row for row in read()}
    with tempfile.TemporaryDirectory() as folder:
        for subject in subjects(Path(folder)):
            if asked.only and asked.only not in subject.name:
                continue
            left = [one for one in pairs if asked.again
                    or (asked.name, subject.name, str(one)) not in rows]  # fmt: skip
            chosen = subject._replace(chunks=asked.chunks or subject.chunks)
            for row in measure(chosen, asked.name, left, engine) if left else ():
                rows[row.key] = row
                write(list(rows.values()))
    write(list(rows.values()))


def measure(subject: Subject, build: str, pairs: list[Pair], engine: Engine) -> Iterator[Row]:
    """A row per pair; f16 once."""
    heads = heads_by_layer(read_model(subject.path))
    with Worker(engine) as worker:
        worker.library(engine.directory)
        told = worker.model(str(subject.path), gpu_layers=0)
        chunks = _chunks(worker, subject, told)
        worker.open(REFERENCE, SHAPE)
        reference = _logits(worker, chunks, told.vocabulary)
        for pair in pairs:
            with Worker(engine) as own:  # some builds keep state from one context to the next
                own.library(engine.directory)
                own.model(str(subject.path), gpu_layers=0)
                sides = own.stored(pair, SHAPE)
                own.open(pair, SHAPE)
                measured = _kl(reference, _logits(own, chunks, told.vocabulary))
            worker.open_healthy(sides, heads, SHAPE)
            emulated = _kl(reference, _logits(worker, chunks, told.vocabulary))
            row = Row(subject.name, build, str(pair), measured, emulated)
            if off_by_little([_judged(row)]):
                draws = []
                for draw in range(1, DRAWS + 1):
                    worker.open_healthy(sides, heads, SHAPE, draw)
                    draws.append(_kl(reference, _logits(worker, chunks, told.vocabulary)))
                row = msgspec.structs.replace(row, draws=tuple(draws))
            yield row


def read() -> list[Row]:
    """What was measured earlier."""
    return read_rows(KEPT, Row)


def write(rows: list[Row]) -> None:
    """Both files."""
    ordered = sorted(rows, key=lambda row: row.key)
    write_rows(KEPT, ordered)
    PAGE.write_text(page(ordered), encoding="utf-8")


def page(rows: list[Row]) -> str:
    """The table in markdown."""
    text = (
        "# Healthy cells\n\n`python -m tools.healthy_table` writes this page from "
        "`healthy-table.json`, and measures what that lacks: mean KL to f16 of a cell, over that "
        "of its emulation with f16's kernels, chunks of 512 tokens, 256 scored, on CPUs. Interval "
        "and verdict are those of the gate `kl_ratio` with its default limits; scatter is that of "
        "the ratio of a chunk. Where a pair is off by little, KL emulated is the mean of four "
        "emulations that are as likely ([why](healthy.md)).\n"
    )
    for build in sorted({row.build for row in rows}, reverse=True):
        text += f"\n## {build}\n\n{HEAD}"
        before = ""
        for row in (one for one in rows if one.build == build):
            text += _line(row, row.model if row.model != before else "")
            before = row.model
    wrong = [row for row in rows if _judged(row).verdict == "fail"]
    undecided = sum(_judged(row).verdict == "inconclusive" for row in rows)
    models = len({row.model for row in rows})
    return text + (
        f"\n{len(rows)} rows of {models} models: {len(wrong)} outside the limits, {undecided} not "
        "decided on these chunks.\n"
    )


def _line(row: Row, model: str) -> str:
    gate = _judged(row)
    measured = np.array(row.measured)
    emulated = np.array([row.emulated, *row.draws]).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scatter = float(np.std(np.log(measured / emulated)))
    low = "–" if gate.low is None else f"{gate.low:.2f}"
    high = "–" if gate.high is None else f"{gate.high:.2f}"
    return (
        f"| {model} | {row.pair} | {len(measured)} | {emulated.mean():.3g} | {measured.mean():.3g} "
        f"| {measured.mean() / emulated.mean():.3f} | {low} to {high} | {scatter:.0%} "
        f"| {gate.verdict} |\n"
    )


def _judged(row: Row) -> Gate:
    rules, draws = Rules(cap=len(row.measured)), [np.array(one) for one in row.draws]
    return kl_gate(np.array(row.measured), np.array(row.emulated), rules, 0.0, draws)


def _chunks(worker: Worker, subject: Subject, told: ModelLoaded) -> npt.NDArray[np.int32]:
    text = subject.text.read_bytes()[: 16 * SHAPE.ctx * subject.chunks]
    tokens = worker.tokenize(text)
    count = min(subject.chunks, len(tokens) // SHAPE.ctx)
    chunks = tokens[: SHAPE.ctx * count].reshape(count, SHAPE.ctx).copy()
    if told.bos is not None:
        chunks[:, 0] = told.bos
    return chunks


def _logits(worker: Worker, chunks: npt.NDArray[np.int32], vocabulary: int) -> Logits:
    found: dict[int, Logits] = {}
    for block in worker.score(chunks, SHAPE, vocabulary):
        found.setdefault(block.chunk, []).append(block.logits.copy())
    return [np.concatenate(blocks) for _, blocks in sorted(found.items())]


def _kl(reference: Logits, other: Logits) -> tuple[float, ...]:
    none = np.zeros(SHAPE.scored, np.int32)
    both = zip(reference, other, strict=True)
    return tuple(float(compare_rows(a, b, none[: len(a)]).kl.mean()) for a, b in both)


if __name__ == "__main__":
    main()
