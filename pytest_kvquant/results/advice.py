"""The advice part of the result."""

from __future__ import annotations

import msgspec

from pytest_kvquant import format


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A pair that no other one beats in every figure of the workload."""

    pair: str
    """As `K/V`."""
    kl: float
    """Mean KL, nats per token."""
    compression_measured: float | None
    """Bytes per token of f16/f16 over those of the pair."""
    pp: float | None
    """Prefill speed over that of f16/f16."""
    tg: float | None
    """Speed over that of f16/f16 at ``depth``."""
    depth: int
    """Tokens in the cache at which the speeds were taken."""
    context: int | None = None
    """Tokens of the largest context that works, where it was searched."""
    loss: float
    """How far it lies behind the best in each figure, weighted, in ln."""

    @property
    def text(self) -> str:
        """Its figures."""
        parts = [f"KL {format.kl(self.kl)}"]
        if self.compression_measured is not None:
            parts.append(f"{format.factor(self.compression_measured)}× smaller")
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
    """The work that is advised for."""
    what: str
    """The same in a sentence."""
    best: str
    """The pair, as `K/V`."""
    figures: tuple[str, ...]
    """Those that decided: ``kl``, ``tg``, ``pp``, ``compression`` or ``context``."""
    candidates: tuple[Candidate, ...]
    """Best first."""
    corpus: str = ""
    """The text whose KL decided; empty: the run's own."""

    @property
    def text(self) -> str:
        """One line."""
        best, *others = self.candidates
        line = f"{self.workload} ({self.what}): {self.best} ({best.text})"
        if self.best == "f16/f16":
            line += ", for a quantized cache loses more than it gains here"
        if self.corpus:
            line += f", KL on {self.corpus}"
        if others:
            line += f"; also {', '.join(one.pair for one in others[:2])}"
        return line
