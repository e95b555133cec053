"""A cell on further texts, and on its own text disturbed, as the result carries it."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_kvquant import format
from pytest_kvquant.numerics.metrics import Quality
from pytest_kvquant.results.gate import Gate

TextVerdict = Literal["pass", "fail", "inconclusive", "non-finite"]


class TextFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The quality of a cell on one further text, by the prefill path."""

    corpus: str
    """Name of the text; see ``texts`` of the result."""
    verdict: TextVerdict
    """``fail``: a gate fails that stands among all figures of the run (Bonferroni)."""
    gates: tuple[Gate, ...] = ()
    """Gated figures on this text."""
    quality: Quality | None = None
    """``None`` where logits were no numbers."""
    kl: tuple[float, ...] = ()
    """Mean KL of each chunk, nats."""

    @property
    def text(self) -> str:
        """One line."""
        if self.quality is None:
            return f"{self.corpus}: logits hold a NaN or an infinity"
        wrong = ", ".join(gate.name for gate in self.gates if gate.verdict != "pass")
        return (
            f"{self.corpus}: KL {format.kl(self.quality.kl_mean)}, top-1 "
            f"{format.percent(self.quality.top1)}, {self.verdict}" + (f" ({wrong})" * bool(wrong))
        )


class Robustness(msgspec.Struct, frozen=True, kw_only=True):
    """Mean KL on disturbed text over that on the same chunks as they are."""

    disturbance: str
    """What was done to the text."""
    chunks: int
    """Chunks compared."""
    clean: float
    """Mean KL of these chunks, nats."""
    disturbed: float
    """Mean KL of the same chunks, disturbed, nats."""
    ratio: float | None
    """``None`` where the clean KL is zero."""
    low: float | None
    """Lower end of the interval of the ratio, over chunks."""
    high: float | None
    """Ends of the interval of the ratio, over chunks."""
    verdict: Literal["pass", "fail", "inconclusive"]
    """Of the ratio against its limit."""

    @property
    def text(self) -> str:
        """One line."""
        ratio = "no ratio" if self.ratio is None else f"{self.ratio:.2f} times"
        return f"{self.disturbance}: {ratio} the KL ({format.kl(self.disturbed)})"
