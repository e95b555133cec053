"""Quantizers against arithmetic: healthy ones pass, every planted fault is named."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest

from pytest_kvquant.numerics import quantizer, quantizer_inputs, quantizer_rules
from pytest_kvquant.numerics.known_quantizers import known
from pytest_kvquant.numerics.quantizer import QuantizerFigures
from tests.support import quantizers
from tests.support.quantizers import F32, WIDTHS, Quantizer

HEALTHY: dict[str, Quantizer] = {
    "q8_0": quantizers.q8_0,
    "q5_0": quantizers.q5_0,
    "q4_0": quantizers.q4_0,
    "turbo3": quantizers.turbo3,
}


@cache
def inputs(block: int) -> dict[str, F32]:
    return quantizer_inputs.make(block)


def figures(name: str, through: Quantizer) -> QuantizerFigures:
    block, size = WIDTHS[name]
    with np.errstate(all="ignore"):
        back = {key: through(values) for key, values in inputs(block).items()}
    return quantizer.measure(name, block, size, inputs(block), back)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_quantizer_breaks_no_rule(name: str) -> None:
    found = figures(name, HEALTHY[name])

    assert quantizer_rules.judge(found, known(found)) == ()


@pytest.mark.parametrize("name", ["q8_0", "q5_0", "q4_0"])
def test_accepted_figures_are_those_of_the_published_formula(name: str) -> None:
    """The table was measured on ggml; NumPy's own lines give the same."""
    found = figures(name, HEALTHY[name])
    accepted = known(found)

    assert accepted is not None
    assert found.snr == pytest.approx(accepted.snr, abs=0.005)
    assert found.norm_spread == pytest.approx(accepted.norm_spread, rel=0.01)


def truncating(values: F32) -> F32:
    return quantizers.q8_0(values, np.trunc)


def flooring(values: F32) -> F32:
    return quantizers.q8_0(values, np.floor)


def seven_bits(values: F32) -> F32:
    return quantizers.q8_0(values, lambda codes: 2 * np.round(codes / 2))


def wrapping(values: F32) -> F32:
    """128 becomes −128: the largest value of a block changes its sign where d is a little small."""
    return quantizers.q8_0(values, lambda codes: (np.round(codes * 1.008) + 128) % 256 - 128)


def edited(healthy: Quantizer, edit: Callable[[F32, F32], F32]) -> Quantizer:
    """What comes back, edited block by block; ``edit(sent, back)`` of shape ``(blocks, block)``."""
    block = next(WIDTHS[name][0] for name, one in HEALTHY.items() if one is healthy)

    def through(values: F32) -> F32:
        back = healthy(values)
        made = edit(values.reshape(-1, block), back.reshape(-1, block).copy())
        return made.reshape(values.shape)

    return through


def sign_plane(_: F32, back: F32) -> F32:
    return np.abs(back)


def sign_of_one(_: F32, back: F32) -> F32:
    back[:, 5] = np.abs(back[:, 5])
    return back


def one_in_a_thousand(_: F32, back: F32) -> F32:
    back[500::1000] *= 2
    return back


def last_of_row(_: F32, back: F32) -> F32:
    back[3::4] *= np.float32(1.02)
    return back


def one_percent(_: F32, back: F32) -> F32:
    return back * np.float32(1.01)


def halves_exchanged(_: F32, back: F32) -> F32:
    return np.roll(back, back.shape[1] // 2, axis=1)


def neighbours_scale(_: F32, back: F32) -> F32:
    size = np.abs(back).max(1, keepdims=True)
    inverse = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
    return back * inverse * np.roll(size, 1, axis=0)


def zero_is_nan(sent: F32, back: F32) -> F32:
    back[~sent.any(1)] = np.nan
    return back


def zero_is_not(sent: F32, back: F32) -> F32:
    back[~sent.any(1)] = 1e-3
    return back


def clipped(_: F32, back: F32) -> F32:
    return np.clip(back, -4, 4)


def subnormal_explodes(sent: F32, back: F32) -> F32:
    back[(np.abs(sent).max(1) < 1e-4) & sent.any(1)] = np.inf
    return back


def small_is_lost(sent: F32, back: F32) -> F32:
    back[np.abs(sent).max(1) < 0.05] = 0
    return back


def large_overflows(sent: F32, back: F32) -> F32:
    back[np.abs(sent).max(1) > 60000] = np.inf
    return back


def coarse_scale(_: F32, back: F32) -> F32:
    """The scale is stored with three bits of mantissa."""
    size = np.abs(back).max(1, keepdims=True)
    exponent = np.floor(np.log2(np.maximum(size, 1e-30)))
    step = np.exp2(exponent - 3)
    return back * np.where(size > 0, np.round(size / step) * step / np.maximum(size, 1e-30), 1)


def offset(_: F32, back: F32) -> F32:
    return back + np.float32(0.05) * np.abs(back).max(1, keepdims=True)


def negatives_differ(_: F32, back: F32) -> F32:
    return np.where(back < 0, back * np.float32(0.97), back)


def first_row_lost(_: F32, back: F32) -> F32:
    back[:4] = 0
    return back


def fifth_bit_lost(_: F32, back: F32) -> F32:
    """The high plane of q5 in one position of the block: ±16 codes."""
    size = np.abs(back).max(1) / 16
    back[:, 17] -= 16 * size * (back[:, 17] > 0)
    return back


FAULTS: dict[str, tuple[str, Quantizer]] = {
    "truncating": ("q8_0", truncating),
    "flooring": ("q8_0", flooring),
    "seven bits of eight": ("q8_0", seven_bits),
    "codes that wrap": ("q8_0", wrapping),
    "zero point off by one": ("q4_0", partial(quantizers.q4_0, zero=7)),
    "seven of eight levels": ("q4_0", partial(quantizers.q4_0, zero=7, levels=7)),
    "norm correction forgotten": ("turbo3", partial(quantizers.turbo3, corrected=False)),
}
for _name, _edit in {
    "sign plane": sign_plane,
    "sign of one position": sign_of_one,
    "one block in a thousand": one_in_a_thousand,
    "last block of a row": last_of_row,
    "one percent": one_percent,
    "halves exchanged": halves_exchanged,
    "scale of the neighbour": neighbours_scale,
    "zero is NaN": zero_is_nan,
    "zero is not zero": zero_is_not,
    "outliers clipped": clipped,
    "subnormal scale divides": subnormal_explodes,
    "small blocks are lost": small_is_lost,
    "65504 overflows": large_overflows,
    "scale of three bits": coarse_scale,
    "offset": offset,
    "negative values": negatives_differ,
    "first row lost": first_row_lost,
    "high plane of one position": fifth_bit_lost,
}.items():
    for _type in ("q8_0", "q4_0", "turbo3"):
        if (_name, _type) not in (("65504 overflows", "turbo3"), ("halves exchanged", "turbo3")):
            FAULTS[f"{_name} ({_type})"] = (_type, edited(HEALTHY[_type], _edit))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    name, through = FAULTS[fault]
    found = figures(name, through)

    assert quantizer_rules.judge(found, known(found)), found


UNSEEN_WITHOUT_FIGURES = {
    "seven of eight levels",
    "norm correction forgotten",
    "halves exchanged (q8_0)",
    "halves exchanged (q4_0)",
    "one percent (q4_0)",
    "scale of three bits (q4_0)",
}
"""What a type of unknown design may be built like: only accepted figures tell."""


@pytest.mark.parametrize("fault", FAULTS)
def test_most_faults_need_no_accepted_figures(fault: str) -> None:
    name, through = FAULTS[fault]
    found = quantizer_rules.judge(figures(name, through))

    assert found or fault in UNSEEN_WITHOUT_FIGURES


def test_a_better_quantizer_is_no_fault_and_is_told() -> None:
    found = figures("q4_0", quantizers.q4_0)
    accepted = known(found)
    assert accepted is not None
    closer = {key: (values + 2 * quantizers.q4_0(values)) / 3 for key, values in inputs(32).items()}
    better = quantizer.measure("q4_0", 32, 18, inputs(32), closer)

    assert quantizer_rules.improvement(better, accepted) > 3
    assert quantizer_rules.improvement(found, accepted) == 0
    assert quantizer_rules.judge(better, accepted) == ()


def test_no_type_beats_shannon() -> None:
    """Figures that no quantizer of so many bits can have: it stores more than it declares."""
    found = figures("q4_0", quantizers.q8_0)

    assert "shannon" in [one.rule for one in quantizer_rules.judge(found)]


def test_a_basis_is_found() -> None:
    block = 128
    sent = inputs(block)["gaussian"]
    turn = quantizer.basis(sent, quantizers.turbo3(sent), block)
    assert turn is not None
    expected = quantizers.signs()[:, None] * quantizers.hadamard(block)

    assert np.abs(turn - expected).max() < 0.02
    assert quantizer.basis(sent, sent, block) is None


@pytest.mark.parametrize(("bits", "dB"), [(8.5, 43.8), (4.5, 20.222), (2.125, 9.3), (1.125, 4.396)])
def test_levels_that_a_payload_has_room_for(bits: float, dB: float) -> None:
    assert quantizer.lloyd_max(bits) == dB
