"""An f16 that makes no sense on the text is said in one line."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pytest_kvquant.numerics.metrics import unigram_perplexity
from pytest_kvquant.report.terminal import render
from pytest_kvquant.report.view import headline
from pytest_kvquant.results.file import read
from pytest_kvquant.results.plausible import doubt, doubt_of
from pytest_kvquant.results.result import Result

GOLDEN = Path(__file__).parents[1] / "golden" / "results" / "schema-1.json"


@pytest.mark.parametrize(
    ("ppl", "vocabulary", "unigram", "said"),
    [
        (8.0, 32_000, 700.0, ""),
        (6_900.0, 32_000, 700.0, ""),
        (7_100.0, 32_000, 700.0, "above 10 times the 700 of a model that knows how often"),
        (32_001.0, 32_000, 700.0, "above the 32,000 of a model that knows nothing"),
        (32_001.0, 32_000, 0.0, "above the 32,000 of a model that knows nothing"),
        (7_100.0, 32_000, 0.0, ""),
        (math.nan, 32_000, 700.0, ""),
        (math.inf, 32_000, 700.0, ""),
    ],
)
def test_out_of_all_reason(ppl: float, vocabulary: int, unigram: float, said: str) -> None:
    found = doubt(ppl, vocabulary, unigram)
    assert said in found
    assert bool(found) == bool(said)
    assert "\n" not in found
    if found:
        assert "wrong tokenizer, chat template, text or model; figures on it mean nothing" in found


def test_the_unigram_of_a_text() -> None:
    assert unigram_perplexity(np.full(50, 7, np.int32)) == pytest.approx(1)
    assert unigram_perplexity(np.arange(50, dtype=np.int32)) == pytest.approx(50)
    skewed = np.array([0] * 90 + [1] * 10, np.int32)
    assert unigram_perplexity(skewed) == pytest.approx(math.exp(0.3251), rel=1e-3)


def strange(ppl: float) -> Result:
    usual = read(GOLDEN)
    first = next(cell for cell in usual.cells if cell.quality is not None)
    assert first.quality is not None
    prefill = msgspec.structs.replace(first.quality.prefill, ppl_reference=ppl)
    cell = msgspec.structs.replace(
        first, quality=msgspec.structs.replace(first.quality, prefill=prefill)
    )
    corpus = msgspec.structs.replace(usual.corpus, unigram_ppl=300.0)
    return msgspec.structs.replace(usual, cells=(cell,), corpus=corpus)


def test_terminal_page_and_summary_say_it_first() -> None:
    odd = strange(3_333.0)
    words = doubt_of(odd)
    assert words
    assert headline(odd).startswith(words)
    assert words in " ".join(render(odd, width=100, colour=False).split())
    usual = strange(20.0)
    assert not doubt_of(usual)
    assert "mean nothing" not in headline(usual) + render(usual, width=100, colour=False)
