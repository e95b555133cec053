"""Blocks of zeros: their scale is zero, and their codes say nothing."""

from __future__ import annotations

import numpy as np

from pytest_kvquant.numerics import writes

BLOCK, BYTES = 32, 18


def compared(held: float, wanted: float) -> writes.Written:
    """Four rows of two blocks whose codes differ in the first block of a row, read back as said."""
    stored = np.zeros((4, 2 * BYTES), np.uint8)
    stored[1, 2:BYTES] = 0x77  # codes that were in memory before
    meant = np.zeros_like(stored)
    values = np.ones((2, 4, 2 * BLOCK), np.float32)
    values[0, 1, :BLOCK], values[1, 1, :BLOCK] = held, wanted
    return writes.compare(stored, meant, *values, block=BLOCK, rounding=1e-3)


def test_codes_of_zeros_say_nothing() -> None:
    """``iq4_nl`` of a build without ``GGML_NATIVE``: half of the bytes differed, no value did."""
    found = compared(0.0, 0.0)
    assert found.differing == 0.0
    assert writes.is_right(found, elsewhere=False)


def test_zeros_in_the_place_of_values_and_values_of_equal_size_are_seen() -> None:
    assert not writes.is_right(compared(0.0, 1.0), elsewhere=False)
    assert not writes.is_right(compared(1.0, 0.0), elsewhere=False)
    assert not writes.is_right(compared(1.0, 1.0), elsewhere=False)  # other codes, same values
