"""One gated figure: its verdict with every number that led to it."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["pass", "fail", "inconclusive"]
Unit = Literal["nats", "share", "ln ratio", "ratio"]
Question = Literal["kernel", "fitness"]


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict with every number that led to it.

    Figure and interval are those of the chunks that decided (`decided_at`), or of all while the
    gate is open.
    """

    name: str
    """As declared in ``checks/``: ``kl_mean``, ``kl_tail``, …"""
    verdict: Verdict
    """`pass`, `fail` or `inconclusive`."""
    figure: float
    """Mean over chunks, in `unit`."""
    low: float | None
    """Lower end of the interval, None where unbounded."""
    high: float | None
    """Upper end of the interval, None where unbounded."""
    budget: float
    """The most the figure may be; for the ln PPL ratio, in both directions."""
    unit: Unit
    """Nats per scored token, share of scored tokens, ln of a PPL ratio, or a plain ratio."""
    chunks: int
    """Chunks looked at, those drawn after the decision included."""
    e_value: float | None
    """The largest E so far, of a gate that passed up to its pass; judged once, the E of all chunks
    together; None for the ln PPL ratio."""
    p_value: float
    """Evidence against the budget for the whole run's correction: 1/e_value, or from t."""
    alpha: float
    """Error allowed a side over all looks."""
    level: float
    """Error of each end of the interval, at one look."""
    decided_at: int | None
    """Chunks at which the verdict fell; None while open."""
    census: bool
    """True where the plain mean of all chunks decided, not a test."""
    chunks_needed: int | None
    """While open: chunks after which a PASS is foreseen; None where none is."""
    rule: str
    """The decision rule, in one sentence."""
    question: Question = "fitness"
    """``kernel``: does the cell cost what its types must cost here; ``fitness``: is that within the
    owner's budget."""
    measured: float | None = None
    """Of a ratio to the healthy cell: the cell's own mean, in the figure's unit."""
    healthy: float | None = None
    """The emulated healthy cell's mean on the same chunks, in the same unit."""
