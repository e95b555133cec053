"""Two real checkpoints go green, red under a planted fault, and give the figures known of them.

``make real`` fetches them (``tools/real_models.py``); skipped where they are not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
from support.outer import pytest_in
from support.run import cells_of, start

from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell
from tools.real_models import GEMMA3, SMOLLM2

FOLDER = Path(os.environ.get("KVQUANT_REAL_MODELS", Path(__file__).parents[2] / ".venv-real"))
pytestmark = [pytest.mark.real, pytest.mark.timeout(7200)]


class Known(NamedTuple):
    """Figures of two chunks of 512 tokens of the embedded corpus, on a CPU."""

    file: str
    ppl: float
    """Of f16, as ``llama-perplexity -c 512 --chunks 2`` printed it."""


PAIRS = ("q8_0/q8_0", "q4_0/q4_0")

KNOWN = (
    Known(SMOLLM2.file, 52.9071),
    Known(GEMMA3.file, 59.2886),
)


@pytest.fixture(params=KNOWN, ids=lambda known: known.file.partition("-")[0])
def known(request: pytest.FixtureRequest) -> Known:
    found: Known = request.param
    if not (FOLDER / "models" / found.file).is_file():
        pytest.skip(f"{found.file} is not in {FOLDER / 'models'}; `make real` fetches it")
    return found


def model(known: Known) -> Path:
    return FOLDER / "models" / known.file


def measured(known: Known, tmp_path: Path, hook: str = "") -> dict[str, Cell]:
    session = start(
        tmp_path, pairs=PAIRS, model=model(known), ctx=512, chunks=2,
        order="sequential", decode=32, trajectory=0, coverage="off", hook=hook,
    )  # fmt: skip
    for pair in PAIRS:
        session.measure(Pair.parse(pair))
    session.measure(Pair("f16", "f16"))
    return cells_of(session.result())


def test_figures(known: Known, tmp_path: Path) -> None:
    cells = measured(known, tmp_path)
    means = []
    for pair in PAIRS:
        quality = cells[pair].quality
        assert quality is not None
        assert quality.prefill.ppl_reference == pytest.approx(known.ppl, rel=2e-3)
        means.append(quality.prefill.kl_mean)
        # one token at a time and at once: BOS at the start of every sequence, by every path
        assert quality.decode is not None
        assert quality.decode.ppl_reference < 3 * known.ppl
    assert 0 < 3 * means[0] < means[1]
    shapes = next(check for check in cells["f16/f16"].checks if check.name == "shapes")
    assert shapes.verdict == "pass", shapes.text


def test_the_matrix_is_green(known: Known, tmp_path: Path) -> None:
    run = pytest_in(
        tmp_path, "--kv-matrix", f"--kv-model={model(known)}", "--kv-types=f16,q8_0",
        "--kv-speed=off", f"--kv-store={tmp_path / 's'}", "-q",
    )  # fmt: skip
    assert run.code == 0, run.text


FAULT = """
def spoilt(logits, *_):
    return logits + np.float32(0.5) * (np.arange(logits.shape[1]) % 2).astype(np.float32)

plant(change_logits=spoilt)
"""


def test_a_planted_fault_is_red(known: Known, tmp_path: Path) -> None:
    cells = measured(known, tmp_path, hook=FAULT)
    assert {cells[pair].verdict for pair in PAIRS} <= {"fail", "inactive"}
    assert cells["f16/f16"].verdict == "pass"
