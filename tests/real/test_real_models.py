"""Two real checkpoints go green, red under a planted fault, and give the figures known of them.

``make real`` fetches them (``tools/real_models.py``); skipped where they are not.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from faults.operations.catalogue import Planted
from support.outer import Outcome, pytest_in
from support.run import cells_of, start

from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell
from tools.real_models import GEMMA3, SMOLLM2

FOLDER = Path(os.environ.get("KVQUANT_REAL_MODELS", Path(__file__).parents[2] / ".venv-real"))
FORK = (
    (f"--kv-lib={library}", f"--kv-python={os.environ.get('KVQUANT_FORK_PYTHON', '')}")
    if (library := os.environ.get("KVQUANT_FORK_LIB"))
    else ()
)
SHIFTS = 'fails = ["operations.shift_head", "operations.shift_middle"]'
"""What the fork is known to crash in, as it is declared."""
pytestmark = [pytest.mark.real, pytest.mark.timeout(7200)]


OPERATIONS = Path(__file__).parents[1] / "faults" / "operations" / "hook.py"


class Known(NamedTuple):
    """Figures of two chunks of 512 tokens of the embedded corpus, on a CPU."""

    file: str
    ppl: float
    """Of f16, as ``llama-perplexity -c 512 --chunks 2`` printed it."""
    kernel_fault: Planted
    """One that lives in q8_0/q8_0 alone."""
    twice: dict[str, float]
    """Added to every other logit of the pair of that type, this doubles its KL. One dose does not
    serve all: 0.5 is a KL of 0.025 nats, on Gemma 4.4 times what q8_0 costs, and 1.16 times (1.07
    to 1.28 after 8 chunks: open) what q4_0 does."""


PAIRS = ("q8_0/q8_0", "q4_0/q4_0")

HALF_OF_V = Planted("gross", "half of V in decoding", "attention", "half", 0.0, {"tokens": [1, 1]})
SCORES = Planted(
    "small batches", "scores of head 1 in small batches", "attention", "scores", 0.05,
    {"tokens": [2, 8], "head": 1},
)  # fmt: skip

KNOWN = (
    Known(SMOLLM2.file, 52.9071, HALF_OF_V, {"q8_0": 0.2, "q4_0": 0.69}),
    Known(GEMMA3.file, 59.2886, SCORES, {"q8_0": 0.27, "q4_0": 1.11}),
)


@pytest.fixture(params=KNOWN, ids=lambda known: known.file.partition("-")[0])
def known(request: pytest.FixtureRequest) -> Known:
    found: Known = request.param
    if not (FOLDER / "models" / found.file).is_file():
        pytest.skip(f"{found.file} is not in {FOLDER / 'models'}; `make real` fetches it")
    return found


def model(known: Known) -> Path:
    return FOLDER / "models" / known.file


def measured(
    known: Known, tmp_path: Path, hook: str = "", chunks: int = 2, **settings: Any
) -> dict[str, Cell]:
    chosen = {"decode": 32, "trajectory": 0, "coverage": "off", **settings}
    session = start(
        tmp_path, pairs=PAIRS, model=model(known), ctx=512, chunks=chunks,
        order="sequential", hook=hook, **chosen,
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


def matrix(known: Known, folder: Path, *words: str) -> tuple[Outcome, dict[str, Any]]:
    """A run with the options of a first one, speed aside: on a CPU that takes hours at depth."""
    run = pytest_in(
        folder, "--kv-matrix", f"--kv-model={model(known)}", "--kv-speed=off", "-q", *words,
        f"--kv-store={folder / 's'}", f"--kv-json={folder / 'r.json'}", timeout=3600,
    )  # fmt: skip
    found = json.loads((folder / "r.json").read_text())["cells"]
    return run, {cell["pair"]: cell for cell in found}


def test_the_matrix_is_green(known: Known, tmp_path: Path) -> None:
    run, cells = matrix(known, tmp_path, "--kv-types=f16,q8_0")
    assert run.code == 0, run.text
    assert {cell["verdict"] for cell in cells.values()} == {"pass"}
    assert {cell["kernel"] for cell in cells.values()} == {"pass"}


@pytest.mark.skipif(not FORK, reason="KVQUANT_FORK_LIB and KVQUANT_FORK_PYTHON name no build")
def test_the_fork_is_green_with_its_shift_crash_declared(known: Known, tmp_path: Path) -> None:
    (tmp_path / "kvquant.toml").write_text(
        f'[expect."q8_0/*"]\n{SHIFTS}\n[expect."turbo4/*"]\n{SHIFTS}\n'
    )
    run, cells = matrix(known, tmp_path, *FORK, "--kv-pairs=f16/f16,q8_0/q8_0,q8_0/turbo4")
    assert run.code == 0, run.text
    assert "fail as declared" in (tmp_path / "r.json").read_text()
    assert "fail" not in {cell["kernel"] for cell in cells.values()}


FAULT = """
planted_in = []

def noted(type_k, type_v):
    planted_in[:] = [type_k]
    return type_k, type_v

def spoilt(logits, *_):
    more = np.float32(DOSES[planted_in[0]])
    return logits + more * (np.arange(logits.shape[1]) % 2).astype(np.float32)

plant(noted, spoilt)
"""


def test_twice_the_kl_is_red(known: Known, tmp_path: Path) -> None:
    # Two chunks decide nothing beside a healthy cell.
    hook = f"DOSES = {known.twice}\n{FAULT}"
    cells = measured(known, tmp_path, hook=hook, chunks=8, decode=0, recall=0)
    for pair in PAIRS:
        ratio = next(gate for gate in cells[pair].gates if gate.name == "kl_ratio")
        assert ratio.figure == pytest.approx(2, rel=0.15), pair
        assert (ratio.verdict, cells[pair].verdict) == ("fail", "fail"), pair
    assert cells["f16/f16"].verdict == "pass"


def test_a_planted_kernel_fault_is_red_for_its_kernel(known: Known, tmp_path: Path) -> None:
    hits = tmp_path / "hits"
    environment = {
        HOOK: str(OPERATIONS),
        "KVQUANT_OPERATION_FAULT": json.dumps(
            known.kernel_fault._replace(pair="q8_0/q8_0")._asdict()
        ),
        "KVQUANT_OPERATION_HITS": str(hits),
    }
    session = start(
        tmp_path, pairs=("q8_0/q8_0", "q8_0/f16"), model=model(known), ctx=512, chunks=2,
        decode=0, trajectory=0, recall=0, coverage="minimal", environment=environment,
    )  # fmt: skip
    for pair in session.pairs:
        session.measure(pair)
    cells = cells_of(session.result())
    assert int(hits.read_text()) > 0
    broken = cells["q8_0/q8_0"]
    assert (broken.verdict, broken.kernel) == ("fail", "fail")
    assert "attention" in [one.name for one in broken.checks if one.verdict == "fail"]
    for healthy in ("f16/f16", "q8_0/f16"):
        assert [one.text for one in cells[healthy].checks if one.verdict == "fail"] == []
