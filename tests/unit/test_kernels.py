"""The fused loops against straightforward NumPy in float64."""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_kvquant.engine.child import probe_kl
from pytest_kvquant.numerics.kernels import TokenFigures, compare_rows, pairwise_kl

F32 = npt.NDArray[np.float32]
ODD = (np.nan, np.inf)


def straightforward(reference: F32, cell: F32, targets: Any) -> dict[str, Any]:
    """As one would write it down: log-softmax in extended precision, one row after another."""

    def log_softmax(rows: F32) -> Any:
        wide = rows.astype(np.longdouble)
        shifted = wide - wide.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    each = np.arange(len(reference))
    p, q = log_softmax(reference), log_softmax(cell)
    ordered = np.sort(reference.astype(np.float64), axis=1)
    return {
        "nll_reference": -p[each, targets],
        "nll_cell": -q[each, targets],
        "kl": (np.exp(p) * (p - q)).sum(axis=1),
        "delta_p": np.exp(q[each, targets]) - np.exp(p[each, targets]),
        "margin": ordered[:, -1] - ordered[:, -2],
        "top_reference": reference.argmax(axis=1),
        "top_cell": cell.argmax(axis=1),
    }


def agrees(found: TokenFigures, reference: F32, cell: F32, targets: Any) -> None:
    expected = straightforward(reference, cell, targets)
    for name in ("nll_reference", "nll_cell", "kl", "delta_p", "margin"):
        np.testing.assert_allclose(
            getattr(found, name), expected[name].astype(np.float64), rtol=1e-12, atol=2e-13,
            err_msg=name,
        )  # fmt: skip
    np.testing.assert_array_equal(found.top_reference, expected["top_reference"])
    np.testing.assert_array_equal(found.top_cell, expected["top_cell"])


def rows(rng: np.random.Generator, n: int, vocabulary: int, spread: float = 4.0) -> F32:
    return (spread * rng.standard_normal((n, vocabulary))).astype(np.float32)


finite = st.floats(-80, 80, width=32)
pairs = st.tuples(st.integers(1, 4), st.integers(2, 40)).flatmap(
    lambda shape: st.tuples(
        arrays.arrays(np.float32, shape, elements=finite),
        arrays.arrays(np.float32, shape, elements=finite),
        arrays.arrays(np.int32, shape[:1], elements=st.integers(0, shape[1] - 1)),
    )
)


@settings(deadline=None, max_examples=50)
@given(pairs)
def test_any_logits(case: tuple[F32, F32, Any]) -> None:
    agrees(compare_rows(*case), *case)


@settings(deadline=None, max_examples=30)
@given(pairs)
def test_kl_is_not_negative_beyond_rounding(case: tuple[F32, F32, Any]) -> None:
    assert (compare_rows(*case).kl >= -1e-13).all()


@settings(deadline=None, max_examples=30)
@given(pairs)
def test_equal_rows_give_exactly_zero(case: tuple[F32, F32, Any]) -> None:
    reference, _, targets = case
    found = compare_rows(reference, reference.copy(), targets)
    for figure in (found.kl, found.delta_p, found.nll_cell - found.nll_reference):
        assert (figure == 0).all()
    np.testing.assert_array_equal(found.top_cell, found.top_reference)


@pytest.mark.parametrize("vocabulary", [2, 3, 7, 8, 15, 16, 17, 8191, 8192, 248_320])
def test_vocabularies_of_any_size(vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    reference = rows(rng, 3, vocabulary)
    cell = reference + rows(rng, 3, vocabulary, 0.05)
    targets = rng.integers(0, vocabulary, 3, dtype=np.int32)
    agrees(compare_rows(reference, cell, targets), reference, cell, targets)
    assert (compare_rows(reference, reference.copy(), targets).kl == 0).all()


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6])
def test_no_cancellation_for_small_differences(size: float) -> None:
    """KL near the square of the difference; the plain difference of two sums would be noise."""
    rng = np.random.default_rng(1)
    reference = rows(rng, 8, 5000)
    cell = (reference + size * rng.standard_normal(reference.shape)).astype(np.float32)
    expected = straightforward(reference, cell, np.zeros(8, np.int32))["kl"].astype(np.float64)
    np.testing.assert_allclose(pairwise_kl(reference, cell), expected, rtol=1e-3, atol=1e-15)


def exactly(reference: F32, cell: F32) -> float:
    """KL of one row in 60 decimal digits."""
    with decimal.localcontext(prec=60):
        wide = [[Decimal(float(x)) for x in row] for row in (reference, cell)]
        weights = [[(x - max(row)).exp() for x in row] for row in wide]
        p_sum, q_sum = (sum(row, Decimal(0)) for row in weights)
        (p, _), (x, y) = weights, wide
        mean = sum((w * (a - b) for w, a, b in zip(p, x, y, strict=True)), Decimal(0)) / p_sum
        return float((q_sum / p_sum).ln() + max(y) - max(x) + mean)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(2, 60),
    st.integers(0, 1 << 30),
    st.floats(-7, 1.5),
    st.sampled_from([0.0, 0.37, -3.0, 50.0]),
    st.sampled_from([0.5, 4.0, 12.0]),
)
def test_exact_at_every_size_of_difference(
    vocabulary: int, seed: int, magnitude: float, shift: float, spread: float
) -> None:
    """Seven digits whatever the CPU adds up in which order, down to a KL near 1e-16."""
    rng = np.random.default_rng(seed)
    reference = rows(rng, 1, vocabulary, spread)
    cell = reference + np.float32(shift) + rows(rng, 1, vocabulary, 10**magnitude)
    expected = exactly(reference[0], cell[0])
    found = pairwise_kl(reference, cell)[0], probe_kl.kl(cell, reference)
    np.testing.assert_allclose(found, expected, rtol=2e-8, atol=1e-24)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 30), st.integers(1, 20), st.integers(-3, 0))
def test_tokens_masked_on_both_sides_add_nothing(seed: int, masked: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rows(rng, 1, 40)
    cell = reference + rows(rng, 1, 40, 10.0**size)
    left = np.sort(rng.permutation(40)[masked:])
    blind = np.full((2, 1, 40), -np.inf, np.float32)
    blind[0][:, left], blind[1][:, left] = reference[:, left], cell[:, left]
    expected = exactly(reference[0, left], cell[0, left])
    found = pairwise_kl(*blind)[0], probe_kl.kl(blind[1], blind[0])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-24)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 30), st.integers(0, 39), st.floats(-60, 30, width=32))
def test_a_token_masked_in_the_reference_alone_takes_probability(
    seed: int, place: int, logit: float
) -> None:
    """KL is then −ln(1 − q) where the rest is equal."""
    rng = np.random.default_rng(seed)
    reference = rows(rng, 1, 40)
    cell = reference.copy()
    reference[0, place], cell[0, place] = -np.inf, logit
    low = reference.copy()
    low[0, place] = -1e4
    found = pairwise_kl(reference, cell)[0], probe_kl.kl(cell, reference)
    np.testing.assert_allclose(found, exactly(low[0], cell[0]), rtol=1e-9, atol=1e-24)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 30), st.integers(0, 39))
def test_a_token_masked_in_the_cell_alone_is_infinite(seed: int, place: int) -> None:
    rng = np.random.default_rng(seed)
    reference, cell = rows(rng, 2, 40), rows(rng, 2, 40)
    cell[0, place] = -np.inf
    assert np.isinf(pairwise_kl(reference, cell)).tolist() == [True, False]
    assert probe_kl.kl(cell, reference) == np.inf
    cell[0, place - 1] = np.nan
    assert np.isnan(pairwise_kl(reference, cell)).tolist() == [True, False]
    assert np.isnan(probe_kl.kl(cell, reference))


def test_a_constant_shift_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    reference = rng.integers(-9, 9, (5, 300)).astype(np.float32)
    found = compare_rows(reference, reference + np.float32(1024), np.zeros(5, np.int32))
    np.testing.assert_allclose(found.kl, 0, atol=1e-12)


def test_far_apart_logits_do_not_overflow() -> None:
    reference = np.array([[0, -1e30, 3e4], [3.4e38, -3.4e38, 0]], np.float32)
    cell = np.array([[0, -2e30, 3e4 - 1], [3.4e38, -3.4e38, 0]], np.float32)
    found = compare_rows(reference, cell, np.array([2, 0], np.int32))
    assert found.kl.tolist() == [0.0, 0.0]
    assert found.nll_cell.tolist() == [0.0, 0.0]


def test_ties_go_to_the_lowest_id_and_have_no_margin() -> None:
    reference = np.array([[1, 5, 5, 2], [7, 7, 7, 7], [0, 0, 9, 8]], np.float32)
    cell = np.array([[5, 1, 5, 5], [7, 7, 7, 7], [9, 0, 0, 9]], np.float32)
    found = compare_rows(reference, cell, np.zeros(3, np.int32))
    assert found.top_reference.tolist() == [1, 0, 2]
    assert found.top_cell.tolist() == [0, 0, 0]
    assert found.margin.tolist() == [0, 0, 1]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 70), st.integers(0, 69), st.sampled_from(ODD), st.sampled_from(["p", "q", "pq"])
)
def test_one_odd_value_anywhere_makes_the_row_nan(
    vocabulary: int, place: int, odd: float, side: str
) -> None:
    rng = np.random.default_rng(vocabulary)
    reference, cell = rows(rng, 3, vocabulary), rows(rng, 3, vocabulary)
    for block, name in ((reference, "p"), (cell, "q")):
        if name in side:
            block[1, place % vocabulary] = odd
    found = compare_rows(reference, cell, np.zeros(3, np.int32))
    assert np.isnan(found.kl).tolist() == [False, True, False]


@pytest.mark.parametrize("odd", [*ODD, -np.inf])
def test_rows_of_nothing_but_odd_values(odd: float) -> None:
    reference = rows(np.random.default_rng(3), 1, 100)
    garbage = np.full_like(reference, odd)
    for pair in ((reference, garbage), (garbage, reference), (garbage, garbage.copy())):
        assert np.isnan(pairwise_kl(*pair)).all()


class TestDigest:
    def of(self, cell: F32) -> list[int]:
        found: list[int] = compare_rows(cell, cell.copy(), np.zeros(len(cell), np.int32)).digest
        return list(found)

    def test_equal_rows_have_equal_digests_whatever_the_reference(self) -> None:
        rng = np.random.default_rng(4)
        cell, targets = rows(rng, 6, 333), np.zeros(6, np.int32)
        digests = [compare_rows(rows(rng, 6, 333), cell, targets).digest for _ in range(2)]
        np.testing.assert_array_equal(*digests)
        assert len(set(digests[0].tolist())) == 6

    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 332), st.integers(0, 31))
    def test_one_bit_is_another_digest(self, place: int, bit: int) -> None:
        cell = rows(np.random.default_rng(5), 1, 333)
        other = cell.copy()
        other.view(np.uint32)[0, place] ^= np.uint32(1 << bit)
        assert self.of(cell) != self.of(other)

    def test_order_counts(self) -> None:
        cell = rows(np.random.default_rng(6), 1, 333)
        assert self.of(cell) != self.of(np.ascontiguousarray(cell[:, ::-1]))


def test_mapped_rows_give_the_same_figures(tmp_path: Any) -> None:
    rng = np.random.default_rng(7)
    reference, cell, targets = rows(rng, 4, 500), rows(rng, 4, 500), np.arange(4, dtype=np.int32)
    reference.tofile(tmp_path / "r")
    mapped = np.memmap(tmp_path / "r", np.float32, "r", shape=(4, 500))
    for one, other in zip(
        compare_rows(reference, cell, targets), compare_rows(mapped, cell, targets), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("reference", "cell", "targets"),
    [((2, 8), (2, 9), 2), ((2, 8), (3, 8), 3), ((2, 8), (2, 8), 3), ((2, 1), (2, 1), 2)],
)
def test_shapes_that_do_not_fit_are_refused(
    reference: tuple[int, int], cell: tuple[int, int], targets: int
) -> None:
    with pytest.raises(ValueError, match=r"cannot be compared|two tokens"):
        compare_rows(
            np.zeros(reference, np.float32), np.zeros(cell, np.float32), np.zeros(targets, np.int32)
        )
