"""What a sound quantizer may show, and the finding where one does not."""

from __future__ import annotations

import msgspec

PLAIN_TYPES = ("f32", "f16", "bf16")
"""No blocks, no scale: what is said of scales and levels does not concern them."""

FEW_BITS = 3.0
"""Below, types may be ternary and far from what their bits could do."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a healthy type shows, by what was seen on all types of both builds tried.

    Each docstring tells what was seen (29 types of upstream 0.3.36 and of the TurboQuant fork).
    """

    shannon: tuple[float, float] = (9.0, 11.5)
    """dB under Shannon's bound, from 3 bits and below; seen: 8.0 (q4_1), 10.7 (q2_0)."""
    lloyd_max: tuple[float, float] = (3.5, 7.0)
    """dB under the best scalar quantizer of the payload; seen: 2.8 (the fork's turbo4, whose
    outermost levels lie at 1.97 standard deviations instead of 2.73), 6.4 (q2_0)."""
    gain: float = 2.0
    """Shrinking over distortion; a centroid quantizer has 1, seen: 1.5 (mxfp4)."""
    bias: float = 0.03
    """Mean error over its root mean square; seen: 0.012 (q3_K)."""
    position: float = 1.35
    """Seen: 1.17 (iq3_s)."""
    place: float = 1.1
    """Seen: 1.02."""
    place_gain: float = 0.02
    """Times the root of the distortion: ten standard errors of 262,144 values."""
    row: float = 2.5
    """Seen: 1.9 (blocks of 32)."""
    block: float = 5.0
    """Seen: 3.3 (blocks of 32)."""
    block_gain: float = 1.6
    """Times the root of the distortion; seen: 1.34 (mxfp4)."""
    sign: float = 0.1
    """dB; seen: 0.011 (q4_K)."""
    asymmetry: float = 1.5
    """Of independent errors: 1.41; seen: 1.2 (q5_K)."""
    scale: float = 0.1
    """dB at 2^±3; seen: 0.0."""
    far_scale: float = 10.0
    """dB at 2^±8; seen: 8.9 (nvfp4, whose scales have 8 bits)."""
    outlier: float = 12.0
    """dB under the normal source; seen: 9.0 (iq2_s)."""
    tiny: float = 3.0
    """Times the largest value sent; seen: 1.7 (q4_1)."""
    large: float = 1.5
    """Times 65504; seen: 1.28 (iq3_xxs)."""


class Tolerances(msgspec.Struct, frozen=True, kw_only=True):
    """How far the same type may be from its accepted figures."""

    snr: float = 0.1
    """dB."""
    better: float = 0.5
    """dB over the accepted figures from which on sizes may differ too: another, better quantizer.
    (A norm correction that is forgotten gains 0.1 dB on a normal source.)"""
    gain: float = 0.15
    """Of the distortion."""
    norm: float = 0.05
    """Of the root of the distortion, for the mean and the spread of |back| / |sent|."""
    spread: float = 1.3
    """Times, for the worst row and block."""
    scale: float = 0.5
    """dB, at each power of two, and for outliers."""
    reach: float = 1.25
    """Times, either way, of the largest value that comes back."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that a quantizer breaks."""

    rule: str
    """``finite``, ``zero``, ``shannon``, ``gain``, ``position``, …"""
    figure: float
    """What was measured, in the unit of the text."""
    limit: float
    """What is allowed."""
    text: str
    """One sentence."""
