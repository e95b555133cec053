"""When a quantizer is not what its bits and symmetries allow: limits, and the words for each.

Two kinds of rules. The first hold for any type, known or not. The second compare with figures of
the same type (name, block, bytes) that were accepted: the owner's baseline, else those that are
shipped for the types of llama.cpp and of the forks tried. The inputs are seeded and a reference
quantizer is plain arithmetic, so the same quantizer gives the same figures but for compilers'
rounding; the limits of both kinds stand well outside of that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_kvquant.numerics.quantizer import OVERFLOW, QuantizerFigures
from pytest_kvquant.numerics.quantizer_limits import (
    FEW_BITS,
    PLAIN_TYPES,
    Finding,
    Limits,
    Tolerances,
)


def judge(
    figures: QuantizerFigures,
    accepted: QuantizerFigures | None = None,
    limits: Limits | None = None,
    tolerances: Tolerances | None = None,
) -> tuple[Finding, ...]:
    """The rules that a quantizer breaks; none for a healthy one.

    Args:
        accepted: figures of the same type; ``None`` where none are known.
    """
    limits, tolerances = limits or Limits(), tolerances or Tolerances()
    known = accepted is not None and same_type(figures, accepted)
    found = [*_sound(figures, limits), *_even(figures, limits)]
    if figures.type not in PLAIN_TYPES:
        found += _scales(figures, limits)
        found += _bounds(figures, limits)
    if not known:
        found += _large(figures, limits)
    elif accepted is not None:
        found += _as_accepted(figures, accepted, tolerances)
    return tuple(found)


def same_type(ours: QuantizerFigures, theirs: QuantizerFigures) -> bool:
    """Whether two figures are of one type: name, block and bits."""
    return (ours.type, ours.block, ours.bits) == (theirs.type, theirs.block, theirs.bits)


def improvement(figures: QuantizerFigures, accepted: QuantizerFigures | None) -> float:
    """dB that a normal source gained over the accepted figures; 0 where that is no more than
    rounding."""
    gained = 0.0 if accepted is None else figures.snr - accepted.snr
    return gained if gained > Tolerances().snr else 0.0


def distortion(figures: QuantizerFigures) -> float:
    """Mean squared error of a normal source of variance 1."""
    return float(10 ** (-figures.snr / 10))


def _sound(f: QuantizerFigures, limits: Limits) -> Iterator[Finding]:
    if not f.finite:
        yield _finding("finite", 0, 1, "finite rows come back with NaN or infinities")
    yield from _most("zero", f.zero, 0, "rows of zeros come back as up to {figure:.3g}")
    yield from _most(
        "order",
        f.order,
        0,
        "a block's values depend on the blocks around it (by up to {figure:.3g}): the same blocks "
        "in reverse order come back otherwise",
    )
    shrink = abs(f.gain) / max(distortion(f), 2**-20)
    yield from _most(
        "gain",
        shrink,
        limits.gain,
        f"values come back {1 + f.gain:.5f} times as large along themselves, {{figure:.2f}} times "
        "the distortion (a centroid's is 1): rounded to one side, or a wrong scale",
    )
    yield from _most(
        "bias",
        abs(f.bias),
        limits.bias,
        "the mean error is {figure:.3f} of its root mean square: rounded to one side, or a zero "
        "point off",
    )
    least = f.snr - limits.outlier
    if f.outlier < least:
        yield _finding(
            "outlier",
            f.outlier,
            least,
            f"a block with one large value comes back with {f.outlier:.1f} dB, a normal one with "
            f"{f.snr:.1f} dB",
        )
    yield from _most(
        "tiny",
        f.tiny,
        limits.tiny,
        "values so small that their scale is subnormal come back {figure:.3g} times as large",
    )


def _large(f: QuantizerFigures, limits: Limits) -> Iterator[Finding]:
    """What f16 can hold must not overflow. (Types with an f16 norm of 128 values do, and are known
    to: their accepted figures say so.)"""
    for what, figure in (("one value", f.large_one), ("every value", f.large_all)):
        yield from _most(
            "large",
            figure,
            limits.large,
            f"±65504 as {what} of a block comes back "
            + ("NaN or infinite" if figure == OVERFLOW else "{figure:.3g} times as large"),
        )


def _even(f: QuantizerFigures, limits: Limits) -> Iterator[Finding]:
    """The same everywhere: positions, places, rows, blocks, signs."""
    for rule, figure, limit, what in (
        ("position", f.worst_position, limits.position, "one position in the block"),
        ("place", f.worst_place, limits.place, "one of the blocks of each row"),
    ):
        yield from _most(
            rule, figure, limit, f"{what} has {{figure:.3g}} times the mean squared error of all"
        )
    for rule, figure, limit in (
        ("row", f.worst_row, limits.row),
        ("block", f.worst_block, limits.block),
    ):
        yield from _most(
            rule, figure, limit, f"the worst {rule} has {{figure:.3g}} times the median's error"
        )
    root = math.sqrt(max(distortion(f), 2**-20))
    yield from _most(
        "place gain",
        f.place_gain / root,
        limits.place_gain,
        f"one of the blocks of each row is {f.place_gain:.2%} larger or smaller than the others",
    )
    furthest = max(-f.block_gain_low, f.block_gain_high)
    yield from _most(
        "block gain",
        furthest / root,
        limits.block_gain,
        f"some blocks come back {1 + f.block_gain_low:.3f} to {1 + f.block_gain_high:.3f} times "
        "as large: a scale that is not theirs",
    )
    yield from _most(
        "sign", abs(f.sign), limits.sign, "negated values differ by {figure:.2f} dB from the same"
    )
    yield from _most(
        "asymmetry",
        f.asymmetry,
        limits.asymmetry,
        "x and −x come back unlike by {figure:.2f} times the error itself",
    )


def _scales(f: QuantizerFigures, limits: Limits) -> Iterator[Finding]:
    for exponent, change in f.scale.items():
        limit = limits.scale if abs(int(exponent)) <= 3 else limits.far_scale
        yield from _most(
            "scale",
            abs(change),
            limit,
            f"the same values times 2^{exponent} come back {{figure:.2f}} dB "
            f"{'worse' if change < 0 else 'better'}",
        )


def _bounds(f: QuantizerFigures, limits: Limits) -> Iterator[Finding]:
    few = f.bits < FEW_BITS
    if f.to_shannon < 0:
        yield _finding(
            "shannon",
            f.to_shannon,
            0,
            f"{f.snr:.2f} dB are more than {f.bits:g} bits a value can give "
            f"({f.snr + f.to_shannon:.2f} dB, Shannon): the type stores more than it declares",
        )
    yield from _most(
        "shannon",
        f.to_shannon,
        limits.shannon[few],
        f"{f.snr:.2f} dB are {{figure:.1f}} dB under Shannon's bound for {f.bits:g} bits",
    )
    yield from _most(
        "lloyd-max",
        -f.to_lloyd_max,
        limits.lloyd_max[few],
        f"{f.snr:.2f} dB are {{figure:.1f}} dB under the best scalar quantizer of its levels",
    )


def _as_accepted(
    f: QuantizerFigures, accepted: QuantizerFigures, within: Tolerances
) -> Iterator[Finding]:
    if f.own_basis != accepted.own_basis:
        yield _finding(
            "basis",
            f.own_basis,
            accepted.own_basis,
            "values come back in another basis than before: places or signs are exchanged",
        )
    noise = distortion(accepted)
    root = math.sqrt(noise)
    for rule, now, then, dB in (
        ("snr", f.snr, accepted.snr, within.snr),
        ("laplace", f.laplace, accepted.laplace, within.snr),
        ("outlier", f.outlier, accepted.outlier, within.scale),
        *(
            (f"scale 2^{n}", f.scale.get(n, -300.0), change, within.scale)
            for n, change in accepted.scale.items()
        ),
    ):
        if now < then - dB:
            text = f"{rule}: {now:.2f} dB, accepted are {then:.2f} dB"
            yield _finding(rule, now, then - dB, text)
    better = f.snr > accepted.snr + within.better
    for rule, now, then, by in (
        ("gain", f.gain, accepted.gain, within.gain * noise + 2e-6),
        ("norm", f.norm, accepted.norm, within.norm * root),
        ("norm spread", f.norm_spread, accepted.norm_spread, within.norm * root),
    ):
        if abs(now - then) > by and not better:
            text = f"{rule}: {now:.3g}, accepted is {then:.3g} ± {by:.1g}"
            yield _finding(rule, now, then, text)
    for rule, now, then in (
        ("worst row", f.worst_row, accepted.worst_row),
        ("worst block", f.worst_block, accepted.worst_block),
    ):
        if now > within.spread * max(then, 1):
            text = f"{rule}: {now:.3g} times the median's error, accepted is {then:.3g}"
            yield _finding(rule, now, within.spread * then, text)
    for now, then in ((f.large_one, accepted.large_one), (f.large_all, accepted.large_all)):
        if then != OVERFLOW and not then / within.reach <= now <= then * within.reach:
            text = f"±65504 comes back {now:.3g} times as large, accepted is {then:.3g}"
            yield _finding("large", now, then, text)


def _most(rule: str, figure: float, limit: float, text: str) -> Iterator[Finding]:
    if not figure <= limit:
        allowed = "" if limit == 0 else f"; allowed is {limit:.3g}"
        yield _finding(rule, figure, limit, text.format(figure=figure) + allowed)


def _finding(rule: str, figure: float, limit: float, text: str) -> Finding:
    return Finding(rule=rule, figure=float(figure), limit=float(limit), text=text)
