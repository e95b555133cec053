"""Recall by distance of SmolLM2-135M-Instruct: the table of docs/workloads.md.

``python -m tools.recall_table`` measures f16, q8_0 and q4_0, and q8_0 once more with a planted
fault that loses what lies more than 1,024 tokens back; it keeps the figures in
docs/recall-table.json and writes the table between its marks. A second build adds its rows:
``--lib DIR --python PATH --name NAME --types turbo3``. ``make real`` fetches the model
(``KVQUANT_REAL_MODELS``); the text is prose of the package.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import msgspec

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.recall import RecallPoint
from pytest_kvquant.session.observer import Announcer
from pytest_kvquant.session.run import Session
from tools.kept_rows import read_rows, write_rows
from tools.real_models import SMOLLM2

ROOT = Path(__file__).parents[1]
KEPT, PAGE = ROOT / "docs" / "recall-table.json", ROOT / "docs" / "workloads.md"
BEGIN, END = "<!-- recall: python -m tools.recall_table -->\n", "<!-- end recall -->\n"

LENGTH = 2048
LOST_BEYOND = 1024
SHAPE = {
    "ctx": 512, "chunks": 2, "recall": LENGTH, "batch": 128, "ubatch": 128, "order": "sequential",
    "decode": 0, "trajectory": 0, "probe": "off", "coverage": "off", "disturbed": "ignore",
}  # fmt: skip
"""Batches are short, so that the planted fault loses rows before the repeats are read."""

FAULT = f"""
from pytest_kvquant.engine.child.context import Context

_open, _decode = Context.__init__, Context.decode


def opened(self, model, *, type_k, type_v, **shape):
    self.planted = (type_k, type_v) == ("q8_0", "q8_0")
    _open(self, model, type_k=type_k, type_v=type_v, **shape)


def decoded(self, tokens, positions, sequences, outputs):
    logits = _decode(self, tokens, positions, sequences, outputs)
    last = int(positions.max())
    if self.planted and last > {LOST_BEYOND}:
        logits = logits.copy()
        self.llama.llama_memory_seq_rm(self.memory, 0, 0, last - {LOST_BEYOND})
    return logits


Context.__init__, Context.decode = opened, decoded
"""
"""A worker hook: after each batch q8_0/q8_0 loses what lies further back."""


class RecallRow(msgspec.Struct, frozen=True):
    """One pair of one build."""

    build: str
    pair: str
    points: tuple[RecallPoint, ...]

    @property
    def key(self) -> tuple[str, str]:
        """Build and pair."""
        return self.build, self.pair


def recalled(
    model: Path,
    pairs: tuple[str, ...],
    store: Path,
    *,
    hook: str = "",
    lib: Path | None = None,
    python: Path | None = None,
) -> dict[str, Cell]:
    """Cells by pair, f16/f16 among them, with what they recall.

    Args:
        store: a folder for logits and, with ``hook``, for that file.
        hook: Python that every worker runs first.

    Raises:
        RunRefused: model or build cannot be used.
    """
    environment = {}
    if hook:
        path = store / "hook.py"
        path.write_text(hook, encoding="utf-8")
        environment["KVQUANT_WORKER_HOOK"] = str(path)
    settings = Settings(
        **SHAPE, model=model, pairs=pairs, store=store / "logits", environment=environment,
        lib=lib, python=python,
    )  # fmt: skip
    session = Session(settings, dict(os.environ), Announcer("recall"))
    try:
        for pair in (*session.pairs, REFERENCE):
            session.measure(Pair.parse(str(pair)))
        return {cell.pair: cell for cell in session.result().cells}
    finally:
        session.close()


def main() -> None:
    """Measure, keep, and write the table."""
    given = argparse.ArgumentParser(prog="python -m tools.recall_table", description=__doc__)
    given.add_argument("--lib", type=Path)
    given.add_argument("--python", type=Path)
    given.add_argument("--name", default="llama.cpp of bindings 0.3.36")
    given.add_argument("--types", default="q8_0,q4_0")
    asked = given.parse_args()
    folder = Path(os.environ.get("KVQUANT_REAL_MODELS", ROOT / ".venv-real")) / "models"
    model = folder / SMOLLM2.file
    pairs = tuple(f"{name}/{name}" for name in asked.types.split(","))
    rows = {row.key: row for row in read()}
    with tempfile.TemporaryDirectory() as store:
        where = {"lib": asked.lib, "python": asked.python}
        found = recalled(model, pairs, Path(store), **where)
        for name, cell in found.items():
            rows[asked.name, name] = RecallRow(asked.name, name, cell.recall)
        if not asked.lib:
            cell = recalled(model, ("q8_0/q8_0",), Path(store), hook=FAULT)["q8_0/q8_0"]
            name = f"q8_0/q8_0 that loses what is over {LOST_BEYOND:,} tokens back"
            rows[asked.name, name] = RecallRow(asked.name, name, cell.recall)
    write(list(rows.values()))


def read() -> list[RecallRow]:
    """What was measured earlier."""
    return read_rows(KEPT, RecallRow)


def write(rows: list[RecallRow]) -> None:
    """Both files."""
    write_rows(KEPT, rows)
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}{table(rows)}{END}{after}", encoding="utf-8")


def table(rows: list[RecallRow]) -> str:
    """In markdown: a row per pair, f16 in nats, the others in shares of its gain."""
    distances = sorted({point.distance for row in rows for point in row.points})
    heads = " | ".join(f"{one:,}" for one in distances)
    text = f"| build | K/V | {heads} |\n|---|---|{'--:|' * len(distances)}\n"
    for row in sorted(rows, key=lambda row: (row.build, row.pair != str(REFERENCE))):
        points = {point.distance: point for point in row.points}
        cells = " | ".join(
            _shown(points.get(distance), row.pair == str(REFERENCE)) for distance in distances
        )
        unit = ": gain, nats" if row.pair == str(REFERENCE) else ""
        text += f"| {row.build} | {row.pair}{unit} | {cells} |\n"
    return text


def _shown(point: RecallPoint | None, nats: bool) -> str:
    if point is None:
        return "–"
    if nats:
        return f"{point.reference:.2f}"
    if point.kept is None or point.low is None or point.high is None:
        return "f16 recalls nothing"
    verdict = "" if point.verdict == "pass" else f", {point.verdict}"
    return f"{point.kept:.0%} ({point.low:.0%} to {point.high:.0%}){verdict}"


if __name__ == "__main__":
    main()
