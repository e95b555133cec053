"""Per-token figures in, per-chunk figures out."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.kernels import TokenFigures, compare_rows

CHUNKS, SCORED, VOCABULARY = 3, 10, 30


def block(seed: int, rows: int = SCORED, noise: float = 0.5) -> TokenFigures:
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((rows, VOCABULARY)).astype(np.float32)
    cell = reference + (noise * rng.standard_normal(reference.shape)).astype(np.float32)
    return compare_rows(reference, cell, rng.integers(0, VOCABULARY, rows, dtype=np.int32))


def part(figures: TokenFigures, start: int, stop: int) -> TokenFigures:
    return TokenFigures._make(column[start:stop] for column in figures)


@pytest.fixture
def evidence() -> Evidence:
    return Evidence(CHUNKS, SCORED, tail_over=0.1, tie_band=0.05)


def test_figures_per_chunk_are_means_over_its_tokens(evidence: Evidence) -> None:
    whole = [block(seed) for seed in range(2)]
    for chunk, figures in enumerate(whole):
        evidence.put(chunk, 0, figures)
    found = evidence.per_chunk()
    assert evidence.complete == 2
    for chunk, figures in enumerate(whole):
        other = figures.top_cell != figures.top_reference
        expected = {
            "kl": np.clip(figures.kl, 0, None).mean(),
            "ln_ppl": (figures.nll_cell - figures.nll_reference).mean(),
            "tail": (figures.kl > 0.1).mean(),
            "flips": (other & (figures.margin > 0.05)).mean(),
            "top1": 1 - other.mean(),
            "nll_cell": figures.nll_cell.mean(),
            "nll_reference": figures.nll_reference.mean(),
        }
        for name, value in expected.items():
            assert getattr(found, name)[chunk] == pytest.approx(value, abs=1e-15), name
    assert 0 < found.tail[0] < 1
    assert 0 < found.flips[0] < 1


def test_blocks_make_the_same_chunk(evidence: Evidence) -> None:
    figures = block(0)
    evidence.put(0, 0, figures)
    for start, stop in ((0, 3), (3, 4), (4, SCORED)):
        assert evidence.complete == 1
        evidence.put(1, start, part(figures, start, stop))
    assert evidence.complete == 2
    for values in evidence.per_chunk():
        assert values[0] == values[1]
    one, other = evidence.digests()
    assert one == other


def test_an_incomplete_chunk_does_not_count(evidence: Evidence) -> None:
    evidence.put(0, 0, block(0))
    evidence.put(1, 0, part(block(1), 0, SCORED - 1))
    assert evidence.complete == 1
    assert len(evidence.per_chunk().kl) == len(evidence.digests()) == 1
    assert evidence.tokens().kl.shape == (1, SCORED)


@pytest.mark.parametrize("complete", [True, False])
def test_the_first_odd_logit_is_found(evidence: Evidence, complete: bool) -> None:
    evidence.put(0, 0, block(0))
    assert evidence.finite
    assert evidence.first_non_finite() is None
    odd = block(1)
    odd.kl[[4, 7]] = np.nan
    evidence.put(1, 0, odd if complete else part(odd, 0, 6))
    assert not evidence.finite
    assert evidence.first_non_finite() == (1, 4)
    evidence.put(2, 0, block(2))
    assert not evidence.finite


def test_digests_are_of_the_logits_in_their_order(evidence: Evidence) -> None:
    figures = block(0)
    swapped = TokenFigures._make(column[::-1].copy() for column in figures)
    for chunk, one in enumerate((figures, figures, swapped)):
        evidence.put(chunk, 0, one)
    a, b, c = evidence.digests()
    assert a == b != c
    assert len(a) == 16


def test_ties_are_not_flips() -> None:
    figures = block(0)
    wide = Evidence(1, SCORED, tail_over=0.1, tie_band=float(figures.margin.max()))
    wide.put(0, 0, figures)
    assert wide.per_chunk().flips[0] == 0
    assert wide.per_chunk().top1[0] < 1
