"""A quantized cell shows more than noise."""

from __future__ import annotations

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact, unseen
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Check

NOISY = 0.01
"""Nats: a floor above this is no rounding, and a quantizer may well stay below it."""


def check_active(
    pair: Pair, quantized: bool, kl: float, floor: float, *, rows_agree: bool = False
) -> Check:
    """A quantized cell shows more than noise: else the quantization is off.

    Args:
        rows_agree: the rows of its cache are what the reference quantizer makes of f16's: it is on,
            however little it does. Logits that are f16's to the bit stay suspicious.
    """
    if quantized and rows_agree and 0 < kl <= floor:
        text = f"KL {kl:.3g} is no more than noise ({floor:.2g}), but the rows are quantized"
        return fact("active", "pass", text, figure=kl, limit=floor)
    if quantized and 0 < kl <= floor and floor > NOISY:
        return fact(
            "active",
            "inconclusive",
            f"f16 differs from itself by KL {floor:.2g} in another batch: what quantization does "
            f"to {pair} (KL {kl:.2g}) drowns in that",
            figure=kl,
            limit=floor,
        )
    off = quantized and kl <= floor
    return fact(
        "active",
        "fail" if off else "pass",
        f"{pair} is quantized, and its KL {kl:.2g} is at the noise floor ({floor:.2g}): "
        "the cache seems not to be quantized at all"
        if off
        else f"KL {kl:.3g} over a floor of {floor:.2g}",
        figure=kl,
        limit=floor,
    )


@check("active", title="quantization is on", test="test_active", group="identity",
       needs="prefill", order=6, unseen="inconclusive")  # fmt: skip
def active(subject: Subject) -> Check | None:
    """A quantized pair shows more than the machine's noise: the quantization is on.

    Why: options that did nothing have been published as lossless compression.

    A failure means: the cache is f16 in disguise, or the build ignores the option.
    """
    if subject.same_pair:
        return None
    if subject.floor is None or subject.cell.quality is None:
        return unseen("active", "the cell's KL, or f16's against itself,")
    figure = subject.cell.quality.prefill.kl_mean
    agree = any(one.name == "contents" and one.verdict == "pass" for one in subject.cell.checks)
    return check_active(subject.pair, subject.quantized, figure, subject.floor.kl, rows_agree=agree)
