"""Figures and budgets in, verdicts out, as data.

Each judge takes a cell's evidence so far, one figure per chunk in the order drawn, and replays
it from the first chunk: the first chunk count at which a rule speaks decides. So the verdict
depends on the evidence alone, and chunks drawn later, for another gate's sake, cannot undo it.

A gate is one of four quantities against its budget:

    kl_mean       mean KL                     FAIL by betting e-value, PASS by log-scale t
    kl_tail       share of tokens over Q nats FAIL by betting e-value, PASS by Clopper-Pearson
    ln_ppl_ratio  ln PPL(cell)/PPL(reference) FAIL and PASS by t, two-sided
    top1_flips    share of decisive flips     FAIL by betting e-value, PASS by Clopper-Pearson

Two cases are not statistical. A budget of exactly 0 means "identical": any figure other than 0
fails at once. And a cell whose figures are all exactly 0 equals the reference to the last bit:
it passes at the first look, however few the chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics import stats
from pytest_kvquant.numerics.stats import FloatArray, Interval

GateName = Literal["kl_mean", "kl_tail", "ln_ppl_ratio", "top1_flips", "decode_kl_mean"]
Verdict = Literal["pass", "fail", "inconclusive"]
Unit = Literal["nats", "share", "ln ratio"]

LEAST_CHUNKS = 3
"""An interval decides from here on: one chunk has no spread, and that of two is a coin toss."""

TAIL_DESIGN_EFFECT = 4.0
"""D0 of the KL tail: large KLs come in runs of neighbouring tokens."""

FLIP_DESIGN_EFFECT = 1.5
"""D0 of decisive flips, which cluster little."""

_TITLES: dict[GateName, str] = {
    "kl_mean": "mean KL",
    "kl_tail": "KL tail",
    "ln_ppl_ratio": "ln PPL ratio",
    "top1_flips": "decisive top-1 flips",
    "decode_kl_mean": "mean KL by the decode path",
}
_ENDINGS: dict[Verdict, str] = {
    "pass": "passes",
    "fail": "fails",
    "inconclusive": "is inconclusive",
}


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When a gate may speak, and how wrong it may be.

    Raises:
        ValueError: for an alpha outside (0, 1), looks that do not ascend from 1, or no cap.
    """

    alpha: float = 0.01
    """Error allowed a side: of a false FAIL, and of a false PASS, over all looks together."""
    looks: tuple[int, ...] = (4, 8, 16, 32)
    """Chunk counts at which an interval may decide, each with its part of alpha."""
    cap: int = 32
    """The most chunks. Later ones are not looked at; a look beyond it is taken at it."""
    census: bool = False
    """At the cap, decide what is open by the plain mean: a statement on these very chunks."""
    early: bool = True
    """False: judge once, at the cap, as one look that has all of alpha."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha lies between 0 and 1, got {self.alpha}")
        if not self.looks or self.looks[0] < 1 or list(self.looks) != sorted(set(self.looks)):
            raise ValueError(f"looks ascend from at least 1, got {self.looks}")
        if self.cap < 1:
            raise ValueError(f"the cap is at least one chunk, got {self.cap}")

    @property
    def e_threshold(self) -> float:
        """1/alpha: what an e-value must reach to fail (Ville 1939)."""
        return 1 / self.alpha

    @property
    def schedule(self) -> tuple[int, ...]:
        """The looks that can happen under this cap, ascending."""
        if not self.early:
            return (self.cap,)
        return tuple(sorted({min(look, self.cap) for look in self.looks}))

    @property
    def level(self) -> float:
        """Error of one end of an interval at one look: alpha shared equally among the looks.

        With four looks alpha/4. A cap that leaves fewer of them does not raise it, so
        that the same evidence reads the same under every cap.
        """
        return self.alpha / self.looks_planned

    @property
    def looks_planned(self) -> int:
        """Among how many looks alpha is shared."""
        return len(self.looks) if self.early else 1


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict with every number that led to it.

    Figure and interval are those of the chunks that decided (`decided_at`), or of all while the
    gate is open.
    """

    name: GateName
    verdict: Verdict
    figure: float
    """Mean over chunks, in `unit`."""
    low: float | None
    """Lower end of the interval, None where unbounded."""
    high: float | None
    """Upper end of the interval, None where unbounded."""
    budget: float
    """The most the figure may be; for the ln PPL ratio, in both directions."""
    unit: Unit
    """Nats per scored token, share of scored tokens, or ln of a PPL ratio."""
    chunks: int
    """Chunks looked at, those drawn after the decision included."""
    e_value: float | None
    """The largest E so far, of a gate that passed up to its pass; None for the ln PPL ratio."""
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


def judge_kl_mean(x: npt.ArrayLike, budget: float, rules: Rules) -> Gate:
    """Mean KL against its budget.

    Args:
        x: mean KL(reference ‖ cell) of each chunk, nats, shape (n_chunks,). Rounding below zero
            is clipped.
        budget: nats, >= 0.

    Raises:
        ValueError: for non-finite x or a budget that is negative or not finite.
    """
    raw = _evidence(x, budget, rules)
    figures = np.maximum(raw, 0)

    def needed(seen: FloatArray, now: Interval) -> int | None:
        if now.figure <= 0 or budget <= 0 or seen.size == 1:
            return None
        # On the scale on which the PASS rule works: the plain one promises too few chunks.
        spread = float(seen.std(ddof=1)) / now.figure
        return stats.chunks_needed(math.log(now.figure), spread, math.log(budget))

    quantity = _Quantity(
        name="kl_mean",
        unit="nats",
        title="mean KL",
        bound="the upper end of its log-scale t interval",
        interval=lambda seen: stats.log_t_interval(seen, rules.level),
        needed=needed,
    )
    return _judge_by_e_value(figures, budget, rules, quantity, identity=raw)


def judge_kl_tail(
    x: npt.ArrayLike,
    budget: float,
    rules: Rules,
    *,
    m_tok: int,
    over: float,
    kl: npt.ArrayLike | None = None,
) -> Gate:
    """Share of tokens with a KL over `over` nats against the share allowed.

    Args:
        x: that share of each chunk, shape (n_chunks,), in [0, 1].
        budget: the share allowed, in [0, 1].
        m_tok: scored tokens per chunk.
        over: Q, nats; only told in the rule.
        kl: mean KL of each chunk, shape (n_chunks,). Where it is exactly 0 throughout, a share
            of 0 is exact and not an estimate.

    Raises:
        ValueError: for non-finite x, shares or a budget outside [0, 1], or kl of another shape.
    """
    quantity = _share_quantity(
        "kl_tail",
        f"the share of tokens over {over:g} nats",
        TAIL_DESIGN_EFFECT,
        m_tok,
        budget,
        rules,
    )
    return _judge_share(x, budget, rules, quantity, kl)


def judge_top1_flips(
    x: npt.ArrayLike,
    budget: float,
    rules: Rules,
    *,
    m_tok: int,
    kl: npt.ArrayLike | None = None,
) -> Gate:
    """Share of decisive flips against the share allowed.

    A flip is decisive where the argmax differs and the reference's margin between its two best
    tokens exceeds the tie band.

    Args:
        x: share of decisive flips of each chunk, shape (n_chunks,), in [0, 1].
        budget: the share allowed, in [0, 1].
        m_tok: scored tokens per chunk.
        kl: as for `judge_kl_tail`.

    Raises:
        ValueError: as `judge_kl_tail`.
    """
    quantity = _share_quantity(
        "top1_flips", "the share of decisive flips", FLIP_DESIGN_EFFECT, m_tok, budget, rules
    )
    return _judge_share(x, budget, rules, quantity, kl)


def judge_ln_ppl(x: npt.ArrayLike, budget: float, rules: Rules) -> Gate:
    """The ln PPL ratio against a budget for either direction.

    FAILs where the whole interval m ± t·s/√n lies outside ±budget, PASSes where it lies inside,
    both at looks only. The p-value is the smallest of the looks' (`stats.t_p_value`) times the
    number of looks they share alpha with.

    Args:
        x: mean of nll(cell) - nll(reference) of each chunk, nats, shape (n_chunks,).
        budget: B >= 0: the mean may lie between -B and +B.

    Raises:
        ValueError: for non-finite x or a budget that is negative or not finite.
    """
    figures = _evidence(x, budget, rules)

    def at(n: int) -> Interval:
        return stats.t_interval(figures[:n], rules.level)

    def fails(n: int) -> bool:
        if budget == 0:
            return _speaks(rules, n) and bool(figures[:n].any())
        if n not in rules.schedule or n < LEAST_CHUNKS:
            return False
        return at(n).low > budget or at(n).high < -budget

    def passes(n: int) -> bool:
        if not figures[:n].any():
            return True
        return n >= LEAST_CHUNKS and -budget < at(n).low and at(n).high < budget

    decision = _first_decision(figures, budget, rules, fails, passes)
    seen = figures[: decision.seen]
    now = at(seen.size)
    needed = None
    if decision.verdict == "inconclusive" and seen.size > 1:
        needed = stats.chunks_needed(abs(now.figure), float(seen.std(ddof=1)), budget)
    if budget == 0:
        p_value = 0.0 if seen.any() else 1.0
    else:
        # After a FAIL, later looks may still sharpen the evidence, as an e-value would.
        counted = figures if decision.verdict == "fail" else seen
        p_value = _p_value_of_looks(counted, budget, rules)
    return Gate(
        name="ln_ppl_ratio",
        verdict=decision.verdict,
        figure=now.figure,
        low=_bounded(now.low),
        high=_bounded(now.high),
        budget=budget,
        unit="ln ratio",
        chunks=figures.size,
        e_value=None,
        p_value=p_value,
        alpha=rules.alpha,
        level=rules.level,
        decided_at=decision.at,
        census=decision.census,
        chunks_needed=_beyond(needed, figures.size),
        rule=_ln_ppl_rule(budget, rules),
    )


def holm_exit(
    gates: Sequence[Gate], alpha: float = 0.01, *, unmeasured: int = 0
) -> tuple[bool, ...]:
    """Which failing gates of a whole run count for its exit code.

    Holm over the p-values of all gates of the run, so that a run in which every figure is
    within budget exits non-zero with probability at most `alpha`, whatever the number of cells. A
    failing gate that is not kept "would have failed alone". A census is kept as it is: it speaks of
    the chunks at hand, all of them, and leaves nothing to chance that could be corrected.

    Args:
        gates: every gate of the run, whatever its verdict: each counts for the correction.
        alpha: family-wise error.
        unmeasured: gates of the run that are still to be judged; each counts with p = 1.

    Returns:
        One flag per gate, in the order given: True where it fails and is kept.
    """
    rejected = stats.holm([gate.p_value for gate in gates] + [1.0] * unmeasured, alpha)
    return tuple(
        gate.verdict == "fail" and (gate.census or bool(kept))
        for gate, kept in zip(gates, rejected[: len(gates)], strict=True)
    )


def settled(gate: Gate, figures_in_run: int) -> bool:
    """Whether more chunks could no longer change what this gate does to the exit code.

    A FAIL alone needs p <= alpha; one that Holm keeps whatever the others say needs
    p <= alpha/m. A cell that stopped drawing at the first would rarely reach the second.

    Args:
        gate: as judged so far.
        figures_in_run: m, the number of gates in the run.
    """
    if gate.verdict == "fail":
        return gate.census or gate.p_value <= gate.alpha / figures_in_run
    return gate.verdict == "pass"


def failure_text(gate: Gate, cell: str) -> str:
    """What a test says about a gate of `cell` (`K/V`): figure, interval, budget, chunks, rule."""
    within = "±" if gate.name == "ln_ppl_ratio" else ""
    lines = [
        f"{cell}: {_TITLES[gate.name]} {_ENDINGS[gate.verdict]}: {_show(gate.figure, gate.unit)}"
        f" against a budget of {within}{_show(gate.budget, gate.unit)}",
        f"  interval  {_show_interval(gate)}",
        f"  chunks    {_show_chunks(gate)}",
        f"  evidence  {_show_evidence(gate)}",
        f"  rule      {gate.rule}",
    ]
    if gate.verdict == "inconclusive":
        lines.append(f"  to pass   {_show_needed(gate)}")
    return "\n".join(lines)


class _Quantity(NamedTuple):
    """What tells one e-value gate from another."""

    name: GateName
    unit: Unit
    title: str
    bound: str
    interval: Callable[[FloatArray], Interval]
    needed: Callable[[FloatArray, Interval], int | None]


class _Decision(NamedTuple):
    verdict: Verdict
    at: int | None
    seen: int
    census: bool


def _evidence(x: npt.ArrayLike, budget: float, rules: Rules) -> FloatArray:
    """The chunks that count, once figures and budget are known to be sound."""
    if not 0 <= budget < math.inf:
        raise ValueError(f"a budget is a number from 0 up, got {budget}")
    return stats.chunk_figures(x)[: rules.cap]


def _speaks(rules: Rules, n: int) -> bool:
    """Whether a rule that holds at every chunk may decide at n chunks."""
    return rules.early or n == rules.cap


def _first_decision(
    figures: FloatArray,
    budget: float,
    rules: Rules,
    fails: Callable[[int], bool],
    passes: Callable[[int], bool],
) -> _Decision:
    """The first chunk count at which a rule speaks; at the same count FAIL comes first."""
    for n in range(1, figures.size + 1):
        if fails(n):
            return _Decision("fail", n, n, census=False)
        if n in rules.schedule and passes(n):
            return _Decision("pass", n, n, census=False)
    if rules.census and figures.size == rules.cap:
        verdict: Verdict = "pass" if abs(float(figures.mean())) <= budget else "fail"
        return _Decision(verdict, rules.cap, rules.cap, census=True)
    return _Decision("inconclusive", None, figures.size, census=False)


def _share_quantity(
    name: GateName, title: str, least: float, m_tok: int, budget: float, rules: Rules
) -> _Quantity:
    def effective_per_chunk(seen: FloatArray) -> float:
        return m_tok / stats.design_effect(seen, m_tok, least)

    def interval(seen: FloatArray) -> Interval:
        effective_n = seen.size * effective_per_chunk(seen)
        return stats.clopper_pearson(float(seen.mean()), effective_n, rules.level)

    def needed(seen: FloatArray, now: Interval) -> int | None:
        per_chunk = effective_per_chunk(seen)
        return stats.chunks_needed_share(now.figure, per_chunk, budget, rules.level)

    return _Quantity(
        name=name,
        unit="share",
        title=title,
        bound="its Clopper-Pearson upper bound on the effective number of tokens",
        interval=interval,
        needed=needed,
    )


def _judge_share(
    x: npt.ArrayLike,
    budget: float,
    rules: Rules,
    quantity: _Quantity,
    kl: npt.ArrayLike | None,
) -> Gate:
    figures = _evidence(x, budget, rules)
    if budget > 1:
        raise ValueError(f"the budget of a share lies between 0 and 1, got {budget}")
    if budget == 0:
        identity = figures
    elif kl is None:
        identity = np.ones_like(figures)
    else:
        identity = stats.chunk_figures(kl)[: rules.cap]
        if identity.shape != figures.shape:
            raise ValueError("kl and the shares must come from the same chunks")
    return _judge_by_e_value(figures, budget, rules, quantity, identity)


def _judge_by_e_value(
    figures: FloatArray, budget: float, rules: Rules, quantity: _Quantity, identity: FloatArray
) -> Gate:
    """FAIL by the betting e-value after every chunk, PASS by an interval's upper end at looks.

    `identity` is 0 for a chunk only where the cell is known to equal the reference.
    """
    e_values = _largest_e_values(figures, budget, identity)

    def fails(n: int) -> bool:
        return _speaks(rules, n) and bool(e_values[n - 1] >= rules.e_threshold)

    def passes(n: int) -> bool:
        if not identity[:n].any():
            return True
        return n >= LEAST_CHUNKS and quantity.interval(figures[:n]).high < budget

    decision = _first_decision(figures, budget, rules, fails, passes)
    seen = figures[: decision.seen]
    now = quantity.interval(seen)
    needed = quantity.needed(seen, now) if decision.verdict == "inconclusive" else None
    # After a FAIL, more chunks may still sharpen the evidence: the largest E is valid at any stop.
    counted = figures.size if decision.verdict == "fail" else seen.size
    e_value = float(e_values[counted - 1])
    return Gate(
        name=quantity.name,
        verdict=decision.verdict,
        figure=now.figure,
        low=_bounded(now.low),
        high=_bounded(now.high),
        budget=budget,
        unit=quantity.unit,
        chunks=figures.size,
        e_value=e_value,
        p_value=stats.e_to_p(e_value),
        alpha=rules.alpha,
        level=rules.level,
        decided_at=decision.at,
        census=decision.census,
        chunks_needed=_beyond(needed, figures.size),
        rule=_e_value_rule(quantity, budget, rules),
    )


def _largest_e_values(figures: FloatArray, budget: float, identity: FloatArray) -> FloatArray:
    """The largest e-value up to each chunk; a budget of 0 is refuted for good by any difference."""
    if budget == 0:
        return np.where(np.logical_or.accumulate(identity != 0), stats.LARGEST_E, 1.0)
    return np.maximum.accumulate(stats.betting_e_values(figures, budget))


def _p_value_of_looks(figures: FloatArray, budget: float, rules: Rules) -> float:
    looks = [n for n in rules.schedule if LEAST_CHUNKS <= n <= figures.size]
    p_values = [stats.t_p_value(figures[:n], budget) for n in looks]
    return min(1.0, rules.looks_planned * min(p_values, default=1.0))


def _bounded(end: float) -> float | None:
    return end if math.isfinite(end) else None


def _beyond(needed: int | None, chunks: int) -> int | None:
    """A forecast that has been overtaken means "one more", not "long ago"."""
    return None if needed is None else max(needed, chunks + 1)


def _e_value_rule(quantity: _Quantity, budget: float, rules: Rules) -> str:
    if budget == 0:
        return _identity_rule(quantity.title)
    return (
        f"{quantity.title[0].upper()}{quantity.title[1:]} fails when the betting e-value against "
        f"its budget reaches {rules.e_threshold:g}, and passes when {quantity.bound} is under the "
        f"budget {_when(rules)}."
    )


def _ln_ppl_rule(budget: float, rules: Rules) -> str:
    if budget == 0:
        return _identity_rule("the ln PPL ratio")
    return (
        "The ln PPL ratio fails when its whole t interval lies outside the budget of either "
        f"direction, and passes when it lies inside, {_when(rules)}."
    )


def _identity_rule(title: str) -> str:
    return f"A budget of 0 means identical: {title} fails at the first difference."


def _when(rules: Rules) -> str:
    *others, last = rules.schedule
    looks = f"{', '.join(map(str, others))} or {last}" if others else str(last)
    census = f"; after {rules.cap} chunks the plain mean decides" if rules.census else ""
    return f"at {looks} chunks{census}"


def _show(figure: float, unit: Unit) -> str:
    if unit == "share":
        return f"{100 * figure:.3g} %"
    return f"{figure:.4g} nats" if unit == "nats" else f"{figure:.4g} (ln)"


def _show_interval(gate: Gate) -> str:
    if gate.low is None or gate.high is None:
        return "none, too few chunks"
    ends = f"{_show(gate.low, gate.unit)} to {_show(gate.high, gate.unit)}"
    return f"{ends} ({100 * (1 - 2 * gate.level):.4g} %)"


def _show_chunks(gate: Gate) -> str:
    if gate.decided_at is None:
        return f"{gate.chunks} used, not decided"
    by = " by the plain mean of all (census)" if gate.census else ""
    return f"{gate.chunks} used, decided at {gate.decided_at}{by}"


def _show_evidence(gate: Gate) -> str:
    e_value = "" if gate.e_value is None else f"E = {gate.e_value:.3g}, "
    return f"{e_value}p = {gate.p_value:.2g} (alpha {gate.alpha:g})"


def _show_needed(gate: Gate) -> str:
    if gate.chunks_needed is not None:
        return f"about {gate.chunks_needed} chunks, if the figure stays as it is"
    if abs(gate.figure) >= gate.budget:
        return "no number of chunks, if the figure stays as it is: it is not under the budget"
    return "unknown, from too few chunks or a figure too close to the budget"
