"""Ropes in exact arithmetic: rotations, their inverse, and their scaling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.numerics.rope import IMROPE, MROPE, NEOX, Rope, angles, turn


@given(st.integers(0, 10_000), st.sampled_from([0, NEOX]))
def test_a_rope_turns_pairs_by_its_angles(position: int, mode: int) -> None:
    values = np.random.default_rng(position).normal(size=(1, 2, 8))
    turned = turn(values, Rope(8, mode), np.array([float(position)]))
    for pair in range(4):
        a, b = (pair, pair + 4) if mode else (2 * pair, 2 * pair + 1)
        angle = position * 10_000.0 ** (-2 * pair / 8)
        meant = (values[..., a] + 1j * values[..., b]) * np.exp(1j * angle)
        np.testing.assert_allclose(turned[..., a] + 1j * turned[..., b], meant, atol=1e-9)


@given(st.integers(0, 500), st.integers(0, 500))
def test_products_depend_on_distance_alone(one: int, other: int) -> None:
    rng = np.random.default_rng(7)
    q, k = rng.normal(size=(2, 1, 1, 16))
    rope = Rope(16, NEOX)

    def product(a: int, b: int) -> float:
        at = [turn(values, rope, np.array([float(p)])) for values, p in ((q, a), (k, b))]
        return float((at[0] * at[1]).sum())

    assert product(one, other) == pytest.approx(product(one + 100, other + 100), abs=1e-8)


def test_elements_behind_the_turned_ones_stay() -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 16))
    turned = turn(values, Rope(8), np.arange(3.0))
    np.testing.assert_array_equal(turned[..., 8:], values[..., 8:])
    np.testing.assert_array_equal(turned[0], values[0])


def test_backwards_undoes_it() -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 16))
    rope, places = Rope(16, NEOX, scale=0.25), np.array([5.0, 90.0, 4000.0])
    back = turn(turn(values, rope, places), rope, places, backwards=True)
    np.testing.assert_allclose(back, values, atol=1e-9)


def test_yarn_leaves_fast_pairs_and_scales_slow_ones() -> None:
    rope = Rope(128, NEOX, scale=0.25, trained=4096, ext=1.0)
    theta, factor = angles(rope, np.array([1000.0]))
    plain, _ = angles(Rope(128, NEOX), np.array([1000.0]))
    assert theta[0, 0] == pytest.approx(plain[0, 0])
    assert theta[0, -1] == pytest.approx(plain[0, -1] / 4)
    assert factor == pytest.approx(1 + 0.1 * np.log(4))


@pytest.mark.parametrize("mode", [MROPE, IMROPE])
def test_equal_positions_in_all_sections_are_a_plain_rope(mode: int) -> None:
    values = np.random.default_rng(0).normal(size=(2, 1, 32))
    places = np.tile(np.array([3.0, 8.0]), (4, 1))
    sections = turn(values, Rope(32, mode, sections=(6, 5, 5, 0)), places)
    np.testing.assert_allclose(sections, turn(values, Rope(32, NEOX), places[0]))
