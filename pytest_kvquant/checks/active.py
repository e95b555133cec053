"""A quantized cell shows more than noise."""

from __future__ import annotations

from pytest_kvquant.checks.facts import _check
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Check


def check_active(pair: Pair, quantized: bool, kl: float, floor: float) -> Check:
    """A quantized cell shows more than noise: else the quantization is off."""
    off = quantized and kl <= floor
    return _check(
        "active",
        "fail" if off else "pass",
        f"{pair} is quantized, and its KL {kl:.2g} is at the noise floor ({floor:.2g}): "
        "the cache seems not to be quantized at all"
        if off
        else f"KL {kl:.3g} over a floor of {floor:.2g}",
        figure=kl,
        limit=floor,
    )
