from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.checks.recall import FIRST_LOOK, check_recall, points, settled
from pytest_kvquant.numerics.recall import LEAST_GAIN, judge
from pytest_kvquant.quality import recall
from pytest_kvquant.quality.recall import CUE, PASSAGE, SCORED, Recalled, distances, plan

RNG = np.random.default_rng(7)
GAIN = 2.0 + 0.3 * RNG.standard_normal(8)


@given(length=st.integers(recall.SHORTEST, 300_000))
def test_distances_double_and_passages_never_overlap(length: int) -> None:
    found = distances(length)
    assert found[0] == recall.NEAREST
    assert all(b >= 1.25 * a for a, b in itertools.pairwise(found))
    end = length - PASSAGE * len(found)
    starts = [end + PASSAGE * at - distance for at, distance in enumerate(found)]
    assert min(starts) >= 1  # token 0 may become BOS
    assert max(start + PASSAGE for start in starts) <= end
    ordered = sorted(starts)
    assert all(b - a >= PASSAGE for a, b in itertools.pairwise(ordered))


def test_the_repeats_repeat_and_the_rest_is_the_text() -> None:
    tokens = np.arange(10_000, dtype=np.int32)
    found = plan(tokens, 1000)
    assert found is not None
    assert found.sequences.shape == (10, 1000), "as many as the text has room for"
    for passage, again, distance in zip(
        found.passages, found.repeats, found.distances, strict=True
    ):
        assert again - passage == distance
        first = found.sequences[:, passage : passage + PASSAGE]
        assert (first == found.sequences[:, again : again + PASSAGE]).all()
    untouched = found.sequences[3, : found.repeats[0]]
    assert (np.diff(untouched) == 1).all()


@pytest.mark.parametrize(("length", "sequences"), [(1024, 16), (1025, 8)])
def test_short_sequences_are_twice_as_many(length: int, sequences: int) -> None:
    found = plan(np.zeros(100_000, np.int32), length)
    assert found is not None
    assert len(found.sequences) == sequences


def test_a_healthy_pair_of_four_bits_is_decided_among_all_pairs_of_a_matrix() -> None:
    """Gains as the embedded model has them: 1.5 nats ± 0.7 a passage, of which it keeps 97 %."""
    draw = np.random.default_rng(5)
    passed = {}
    for count in (16, 8):
        verdicts = []
        for _ in range(200):
            reference = draw.normal(1.5, 0.7, (count, 2))
            cell = 0.97 * reference + draw.normal(0, 0.05, (count, 2))
            found = points((256, 463), _recalled(reference), _recalled(cell), 0.8, cells=16)
            verdicts += [one.verdict == "pass" for one in found]
        passed[count] = np.mean(verdicts)
    assert passed[16] > 0.97
    assert passed[8] > 0.97, "half of them tell it, too: the others are read where they do not"


@pytest.mark.parametrize("count", [8, 16])
def test_a_cell_on_the_budget_passes_by_chance_alone(count: int) -> None:
    draw = np.random.default_rng(11)
    passed = 0
    for _ in range(4000):
        reference = draw.normal(1.5, 0.7, count)
        cell = 0.8 * reference + draw.normal(0, 0.1, count)
        passed += judge(reference, cell, keep=0.8, alpha=0.01).verdict == "pass"
    assert passed <= 0.015 * 4000


def test_half_of_the_passages_is_read_first_and_put_back_in_order() -> None:
    found = plan(np.arange(16_000, dtype=np.int32), 1000)
    assert found is not None
    halves = found.halves()
    assert halves is not None
    assert [part.sequences[0, 0] for part in halves] == [0, 1000]
    gain = np.arange(32.0).reshape(16, 2)
    whole = _recalled(gain)
    evens, odds = (_recalled(gain[first::2]) for first in (0, 1))
    assert (whole.every_other().gain == evens.gain).all()
    assert (evens.among(odds).gain == gain).all()
    few = plan(np.arange(9_000, dtype=np.int32), 1000)
    assert few is not None
    assert few.halves() is None, "four passages decide nothing"


@pytest.mark.parametrize(("keeps", "error"), [(0.8, 0.015), (0.79, 1.0)])
def test_two_looks_raise_no_more_false_alarms_than_one(keeps: float, error: float) -> None:
    """Cells on the budget, and cells below it, 2,000 times: half of the passages, then all."""
    draw = np.random.default_rng(3)
    verdicts = []
    for _ in range(2000):
        reference = draw.normal(2.0, 0.4, (16, 1))
        cell = keeps * reference + draw.normal(0, 0.1, (16, 1))
        before, first = _recalled(reference[::2]), _recalled(cell[::2])
        found = points((256,), before, first, 0.8, share=FIRST_LOOK)
        if not settled(found):
            whole = _recalled(reference), _recalled(cell)
            found = points((256,), *whole, 0.8, share=1 - FIRST_LOOK)
        verdicts.append(found[0].verdict)
    assert verdicts.count("fail") <= error * 2000
    assert verdicts.count("pass") <= 0.015 * 2000, "nor lets it more through"


def test_a_distance_that_f16_seems_not_to_reach_is_asked_again_with_all_passages() -> None:
    draw = np.random.default_rng(1)
    little = draw.normal(0.0, 0.1, (8, 1))
    assert not settled(points((256,), _recalled(little), _recalled(little), 0.8))


@pytest.mark.parametrize(("count", "length"), [(1000, 304), (500, 305), (0, 512)])
def test_no_plan_where_there_is_no_room(count: int, length: int) -> None:
    assert plan(np.zeros(count, np.int32), length) is None


@pytest.mark.parametrize("batch", [64, 300, 512, 2048])
def test_the_script_asks_for_the_logits_before_every_scored_token(batch: int) -> None:
    found = plan(np.arange(2000, dtype=np.int32), 600)
    assert found is not None
    seen: list[int] = []
    position = 0
    for name, *arguments in recall.steps(found, batch):
        if name == "clear":
            position = 0
            continue
        (spans,) = arguments
        assert sum(len(tokens) for _, _, tokens, _ in spans) <= batch
        for sequence, start, tokens, outputs in spans:
            assert sequence == 0
            assert start == position
            position += len(tokens)
            seen += range(position - outputs, position)
    starts = [*found.passages, *found.repeats]
    wanted = sorted(s + CUE - 1 + n for s in starts for n in range(SCORED))
    assert seen == wanted * len(found.sequences)


def test_a_healthy_cell_passes_and_one_that_forgets_fails() -> None:
    assert judge(GAIN, GAIN, keep=1.0, alpha=0.01).verdict == "pass"
    healthy = judge(GAIN, 0.97 * GAIN, keep=0.8, alpha=0.001)
    assert healthy.verdict == "pass"
    assert healthy.kept == pytest.approx(0.97)
    lost = judge(GAIN, 0.02 * RNG.standard_normal(8), keep=0.8, alpha=0.001)
    assert lost.verdict == "fail"
    assert lost.high is not None
    assert lost.high < 0.2


def test_little_evidence_decides_nothing() -> None:
    apart = GAIN[:3] * [0.6, 0.9, 0.8]
    assert judge(GAIN[:3], apart, keep=0.8, alpha=0.001).verdict == "inconclusive"
    assert judge(GAIN[:1], GAIN[:1], keep=0.8, alpha=0.001).verdict == "cannot"


def test_a_reference_that_gains_nothing_judges_nobody() -> None:
    noise = 0.2 * RNG.standard_normal(8)
    assert judge(noise, GAIN, keep=0.8, alpha=0.01).verdict == "cannot"
    small = np.full(8, LEAST_GAIN / 2)
    assert judge(small, small, keep=0.8, alpha=0.01).verdict == "cannot"


def test_not_a_number_is_a_failure() -> None:
    cell = GAIN.copy()
    cell[3] = np.nan
    assert judge(GAIN, cell, keep=0.8, alpha=0.01).verdict == "fail"


def test_false_alarms_on_the_budget_stay_within_alpha() -> None:
    """Cells that keep exactly the least share, 4,000 times."""
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(4000):
        reference = 2 + 0.4 * rng.standard_normal(8)
        cell = 0.8 * reference + 0.1 * rng.standard_normal(8)
        failed += judge(reference, cell, keep=0.8, alpha=0.01).verdict == "fail"
    assert failed <= 0.015 * 4000


def _recalled(gain: np.ndarray) -> Recalled:
    return Recalled(gain + 1.0, np.ones_like(gain), np.full_like(gain, 0.5))


def test_the_check_names_the_distance_where_it_is_lost() -> None:
    reference = np.stack([GAIN, GAIN, 0.01 * RNG.standard_normal(8)], axis=1)
    cell = reference * [0.98, 0.0, 1.0]
    found = points((256, 1024, 4096), _recalled(reference), _recalled(cell), 0.8)
    assert [one.verdict for one in found] == ["pass", "fail", "cannot"]
    check = check_recall(found, 0.8)
    assert check.verdict == "fail"
    assert "1,024: 0%" in check.text
    assert "4,096: this model cannot recall at that distance" in check.text
    assert check.figure == pytest.approx(0.0, abs=1e-9)


def test_a_model_that_cannot_recall_at_all_is_not_judged() -> None:
    nothing = 0.01 * RNG.standard_normal((8, 1))
    found = points((256,), _recalled(nothing), _recalled(nothing), 0.8)
    check = check_recall(found, 0.8)
    assert check.verdict == "pass"
    assert check.text.startswith("not judged")
