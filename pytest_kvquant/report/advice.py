"""The advice part of the result."""

from __future__ import annotations

import msgspec

from pytest_kvquant.report import format

RULE = (
    "Of the pairs of which everything passed and nothing is undecided, those stay that no other "
    "one beats in every figure of the work at once; of these the one is named that lies least "
    "behind the best in each figure, in logarithms, each figure with the weight that the work "
    "gives it. 0.04 nats of KL weigh as much as a factor of e (2.7) in speed or size."
)
"""The rule of the advice in words, for those who read it."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A pair that no other one beats in every figure of the workload."""

    pair: str
    kl: float
    compression: float | None
    """Bytes per token of f16/f16 over those of the pair."""
    pp: float | None
    tg: float | None
    """Speed over that of f16/f16 at ``depth``."""
    depth: int
    context: int | None = None
    """Tokens of the largest context that works, where it was searched."""
    loss: float
    """How far it lies behind the best in each figure, weighted, in ln."""

    @property
    def text(self) -> str:
        """Its figures."""
        parts = [f"KL {format.kl(self.kl)}"]
        if self.compression is not None:
            parts.append(f"{format.factor(self.compression)}× smaller")
        if self.context is not None:
            parts.append(f"{self.context:,} tokens fit")
        at = f" @ d{self.depth}" if self.depth else ""
        for kind, ratio in (("pp", self.pp), ("tg", self.tg)):
            if ratio is not None:
                parts.append(f"{kind}{at} {format.factor(ratio)} of f16")
        return ", ".join(parts)


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """The pair for a workload, and what else comes into question."""

    workload: str
    what: str
    best: str
    figures: tuple[str, ...]
    """Those that decided: ``kl``, ``tg``, ``pp``, ``compression`` or ``context``."""
    candidates: tuple[Candidate, ...]
    """Best first."""

    @property
    def text(self) -> str:
        """One line."""
        best, *others = self.candidates
        line = f"{self.workload} ({self.what}): {self.best} ({best.text})"
        if others:
            line += f"; also {', '.join(one.pair for one in others[:2])}"
        return line
