"""Figures equal to those that ``llama-perplexity --kl-divergence`` of the same build prints.

``KVQUANT_PERPLEXITY`` names the program; beside it lie the libraries of its build.
``KVQUANT_PERPLEXITY_PYTHON`` is the interpreter whose bindings fit (default: this one).
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from real.test_real_models import FOLDER
from support.run import cells_of, start

from pytest_kvquant.data import DATA
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.metrics import Quality
from tools.real_models import GEMMA3, SMOLLM2

PROGRAM = os.environ.get("KVQUANT_PERPLEXITY", "")
PAIRS = tuple(
    os.environ.get("KVQUANT_PERPLEXITY_PAIRS", "q8_0/q8_0,q4_0/q4_0,q8_0/q4_0").split(",")
)
pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not PROGRAM, reason="KVQUANT_PERPLEXITY names no llama-perplexity"),
]

PRINTED = {
    "ppl": (r"Mean PPL\(Q\)\s*:\s*([\d.]+)", 1e-6),
    "ln_ppl_ratio": (r"Mean ln\(PPL\(Q\)/PPL\(base\)\)\s*:\s*(-?[\d.]+)", 1e-6),
    "kl_mean": (r"Mean    KLD:\s*(-?[\d.]+)", 1e-6),
    "kl_max": (r"Maximum KLD:\s*(-?[\d.]+)", 1e-6),
    "top1": (r"Same top p:\s*([\d.]+)", 1e-3),
}
"""What the program prints, and its last digit."""


def printed(model: Path, base: Path, *words: str) -> str:
    ran = subprocess.run(
        [PROGRAM, "-m", model, "-f", DATA / "corpus.txt", "-c", "512", "-b", "512", "--chunks", "2",
         "-t", "2", "-fa", "on", "--kl-divergence-base", base, *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("file", [SMOLLM2.file, GEMMA3.file], ids=["SmolLM2", "gemma"])
def test_to_the_last_printed_digit(file: str, tmp_path: Path) -> None:
    model, base = FOLDER / "models" / file, tmp_path / "base.kld"
    if not model.is_file():
        pytest.skip(f"{file} is not in {FOLDER / 'models'}; `make real` fetches it")
    printed(model, base)
    session = start(
        tmp_path, pairs=PAIRS, model=model, ctx=512, chunks=2, batch=512, threads=2,
        order="sequential", decode=0, trajectory=0, recall=0, coverage="off", probe="off",
        lib=Path(PROGRAM).parent, reference_logits=base,
        python=Path(named) if (named := os.environ.get("KVQUANT_PERPLEXITY_PYTHON")) else None,
    )  # fmt: skip
    for pair in PAIRS:
        session.measure(Pair.parse(pair))
    cells = cells_of(session.result())
    for pair in PAIRS:
        k, _, v = pair.partition("/")
        text = printed(model, base, "--kl-divergence", "-ctk", k, "-ctv", v)
        quality = cells[pair].quality
        assert quality is not None
        for name, said in figures(text).items():
            ours = getattr(quality.prefill, name) * (100 if name == "top1" else 1)
            # the program takes logarithms in float32: that is the least it can mean
            least = 1.01 * PRINTED[name][1]
            assert ours == pytest.approx(said, rel=1.2e-7, abs=least), (pair, name)


def figures(text: str) -> dict[str, float]:
    found = {name: re.search(pattern, text) for name, (pattern, _) in PRINTED.items()}
    assert all(found.values()), text[-2000:]
    return {name: float(one[1]) for name, one in found.items() if one}


def test_names_of_figures_are_ours() -> None:
    assert set(PRINTED) <= set(Quality.__struct_fields__)
