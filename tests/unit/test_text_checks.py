from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.checks.robustness import compared
from pytest_kvquant.checks.texts import check_texts
from pytest_kvquant.numerics.robustness import judge_ratio
from pytest_kvquant.results.texts import TextFigures

RNG = np.random.default_rng(3)
CLEAN = 0.01 * np.exp(0.2 * RNG.standard_normal(8))


def test_a_ratio_is_judged_pair_by_pair() -> None:
    healthy = judge_ratio(CLEAN, 1.1 * CLEAN, most=3, alpha=0.001)
    assert healthy.verdict == "pass"
    assert healthy.ratio == pytest.approx(1.1)
    broken = judge_ratio(CLEAN, 8 * CLEAN, most=3, alpha=0.001)
    assert broken.verdict == "fail"
    assert broken.low is not None
    assert broken.low > 3
    apart = CLEAN * np.exp(2 * RNG.standard_normal(8)) * 3
    assert judge_ratio(CLEAN, apart, most=3, alpha=0.001).verdict == "inconclusive"


def test_nothing_over_nothing_is_fine_and_something_over_nothing_is_not_judged() -> None:
    nothing = np.zeros(4)
    assert judge_ratio(nothing, nothing, most=1, alpha=0.01).verdict == "pass"
    assert judge_ratio(nothing, CLEAN[:4], most=1, alpha=0.01).verdict == "inconclusive"


def test_only_chunks_that_both_have_are_compared() -> None:
    found = compared("case", CLEAN.tolist()[:4], (2 * CLEAN).tolist(), 3, 1)
    assert found.chunks == 4
    assert found.ratio == pytest.approx(2)


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        (("pass", "pass"), "pass"),
        (("pass", "inconclusive"), "inconclusive"),
        (("inconclusive", "fail"), "fail"),
        (("pass", "non-finite"), "fail"),
    ],
)
def test_the_worst_text_decides(verdicts: tuple[str, ...], whole: str) -> None:
    found = [TextFigures(corpus=f"t{n}", verdict=v) for n, v in enumerate(verdicts)]  # type: ignore[arg-type]
    assert check_texts(found).verdict == whole
