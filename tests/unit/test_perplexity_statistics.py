"""Our statistics against what the real ``llama-perplexity --kl-divergence`` printed.

Same library, model, tokens and machine (``tests/golden/perplexity/README.md``), so PPL(Q) and its ±
must agree to the last digit printed. What involves the reference cannot: that program reads it
from a file in which each log-probability is a 16-bit number on a scale from the best token down
to e⁻¹⁶ of it. So a stored log-probability is off by up to half a step, 16/65535/2 nats, and one
below the scale is lifted to its end.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pytest_kvquant.numerics.metrics import Quality, quality
from pytest_kvquant.quality.evidence_file import Kept, read

GOLDEN = Path(__file__).parents[1] / "golden" / "perplexity"
CELLS = ["q8_0-q8_0", "q8_0-turbo4"]

HALF_STEP = 16 / 65535 / 2
"""Nats: the most that rounding moves a stored log-probability on the scale."""
CLAMP = 16.0
"""Nats below the best token at which the stored scale ends."""
TOKENS = 8 * 255
MEAN_STEP = 5 * HALF_STEP / np.sqrt(3 * TOKENS)
"""The same for a mean over all tokens: rounding is uniform and independent, five sigmas."""

LINE = re.compile(r"^(?P<name>.+?)\s*:\s*(?P<value>-?[\d.]+)%?(?:\s*±\s*(?P<error>[\d.]+))?")

PERCENTILES = {
    "Maximum": "max", "99.9%": "p999", "99.0%": "p99", "95.0%": "p95", "90.0%": "p90",
    "75.0%": "p75", "Median": "median", "25.0%": "p25", "10.0%": "p10", "5.0%": "p05",
    "1.0%": "p01", "0.1%": "p001", "Minimum": "min",
}  # fmt: skip


Theirs = dict[str, tuple[float, float | None]]


def printed(name: str) -> Theirs:
    """Figure and ± by the name that the program gives it."""
    text = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").partition("======")[2]
    found = [LINE.match(line.strip()) for line in text.splitlines()]
    return {
        " ".join(match["name"].split()): (
            float(match["value"]),
            float(match["error"]) if match["error"] else None,
        )
        for match in found
        if match
    }


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def theirs(cell: str) -> Theirs:
    return printed(cell)


@pytest.fixture
def kept(cell: str) -> Kept:
    return read(GOLDEN / f"{cell.replace('-', '--')}.npz")


@pytest.fixture
def ours(kept: Kept) -> Quality:
    return quality(kept.columns)


def test_the_golden_text_is_read_whole(theirs: Theirs) -> None:
    assert len(theirs) == 6 + 12 + 16


def test_perplexity_of_the_cell_is_theirs(ours: Quality, theirs: Theirs) -> None:
    value, error = theirs["Mean PPL(Q)"]
    assert ours.ppl == pytest.approx(value, rel=2e-7)
    assert ours.ppl_se == pytest.approx(error, rel=2e-7)


def test_their_reference_is_clamped_and_ours_is_not(
    ours: Quality, kept: Kept, theirs: Theirs
) -> None:
    assert ours.ppl_reference == pytest.approx(166.5423, abs=5e-5)
    theirs_reference, _ = theirs["Mean PPL(base)"]
    fully_clamped = np.exp(np.minimum(kept.columns.nll_reference, CLAMP).mean())
    slack = np.exp(MEAN_STEP)
    assert fully_clamped / slack <= theirs_reference <= ours.ppl_reference * slack


def test_ppl_against_the_reference(ours: Quality, kept: Kept, theirs: Theirs) -> None:
    """Clamping lifts their ln ratio by what it takes from the reference's nll, no more."""
    lifted = np.maximum(kept.columns.nll_reference - CLAMP, 0).mean()
    value, error = theirs["Mean ln(PPL(Q)/PPL(base))"]
    assert -MEAN_STEP <= value - ours.ln_ppl_ratio <= lifted + MEAN_STEP
    ratio, _ = theirs["Mean PPL(Q)/PPL(base)"]
    assert ratio == pytest.approx(np.exp(value), abs=2e-6)
    assert error is not None
    if lifted == 0:
        assert ours.ln_ppl_ratio_se == pytest.approx(error, rel=0.01)
    # clamping adds spread of its own where both models find the token hopeless
    assert ours.ln_ppl_ratio_se <= error * 1.01
    assert 100 * (ours.cor_ln_ppl or 0) >= theirs["Cor(ln(PPL(Q)), ln(PPL(base)))"][0] - 0.005


def test_mean_kl_and_its_error(ours: Quality, theirs: Theirs) -> None:
    value, error = theirs["Mean KLD"]
    assert ours.kl_mean == pytest.approx(value, abs=MEAN_STEP)
    assert ours.kl_mean_se == pytest.approx(error, abs=1.1e-6)
    assert ours.kl_mean_chunk_se is not None


@pytest.mark.parametrize("label", [name for name in PERCENTILES if name[:2] not in ("75", "25")])
def test_kl_percentiles(label: str, ours: Quality, theirs: Theirs) -> None:
    """Their sum is Σ p·ln(p/q) with ln p off by δ, and so p by the factor 1 + δ.

    So KL is off by Σ p·δ·(1 + ln(p/q)), at most half a step times 1 + KL + √(2·KL) (Pinsker).
    """
    value, _ = theirs[f"{label} KLD"]
    kl = getattr(ours, f"kl_{PERCENTILES[label]}")
    off = HALF_STEP * (1 + kl + np.sqrt(2 * kl))
    assert kl == pytest.approx(value, abs=off)


@pytest.mark.parametrize("label", list(PERCENTILES))
def test_probability_percentiles(label: str, ours: Quality, theirs: Theirs) -> None:
    """Δp moves by p times the step at most; in percent, and printed with three decimals."""
    value, _ = theirs[f"{label} Δp"]
    off = 100 * HALF_STEP + 0.0005
    assert 100 * getattr(ours, f"dp_{PERCENTILES[label]}") == pytest.approx(value, abs=off)


def test_mean_and_rms_of_probability_changes(ours: Quality, theirs: Theirs) -> None:
    off = 100 * MEAN_STEP + 0.0005
    assert 100 * ours.mean_dp == pytest.approx(theirs["Mean Δp"][0], abs=off)
    assert 100 * ours.mean_dp_se == pytest.approx(theirs["Mean Δp"][1], abs=0.0006)
    assert 100 * ours.rms_dp == pytest.approx(theirs["RMS Δp"][0], abs=off)
    assert 100 * ours.rms_dp_se == pytest.approx(theirs["RMS Δp"][1], abs=0.0006)


def test_top1_agreement_is_theirs_to_the_token(ours: Quality, theirs: Theirs) -> None:
    assert 100 * ours.top1 == pytest.approx(theirs["Same top p"][0], abs=5.1e-4)
    assert 100 * ours.top1_se == pytest.approx(theirs["Same top p"][1], abs=5.1e-4)
