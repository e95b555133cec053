"""Which pair for which work: the best of those that did not fail, with the figures that decide.

A pair is a candidate for a workload if nothing of it failed or is undecided (quality, baseline,
memory, speed) and all figures of the workload are known. Among candidates those stay that no other
one beats in every figure (Pareto); of them the one with the least loss is named: the weighted sum
of how far each figure lies behind the best candidate, in ln, and of the KL in units of `KL_WORTH`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pytest_kvquant.matrix import REFERENCE
from pytest_kvquant.report import matrix_rows
from pytest_kvquant.results.advice import Advice, Candidate
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.speed import SpeedCell

RULE = (
    "Of the pairs of which everything passed and nothing is undecided, those stay that no other "
    "one beats in every figure of the work at once; of these the one is named that lies least "
    "behind the best in each figure, in logarithms, each figure with the weight that the work "
    "gives it. 0.04 nats of KL weigh as much as a factor of e (2.7) in speed or size. f16/f16 is "
    "one of them but for the longest context, for which it is what people want to get away from."
)
"""The rule of the advice in words, for those who read it."""


class _Figures(NamedTuple):
    """What is known of a pair; ratios over f16/f16 and tokens, the larger the better but ``kl``."""

    pair: str
    kl: float
    compression: float | None
    pp: float | None
    tg: float | None
    depth: int
    context: int | None
    """Tokens of the largest context that works."""
    by_text: dict[str, float]
    """KL on further texts, by name."""


class _Workload(NamedTuple):
    name: str
    what: str
    weights: dict[str, float]
    """Figure to weight; a figure without one does not matter."""
    size: Literal["compression", "context"] = "compression"
    """What stands for memory. A context where all candidates' are known; else the compression."""
    reference: bool = True
    """Whether f16/f16 may be named: it says that no pair is worth it. Not where only size counts,
    of which it has the least."""
    texts: tuple[str, ...] = ()
    """Texts that are of this work, the likest first: the KL on the first that was measured counts,
    else that on the run's own text."""


WORKLOADS = (
    _Workload(
        "coding agent",
        "deep context, long generation",
        {"kl": 1.0, "tg": 1.0, "pp": 0.3, "compression": 0.5},
        texts=("tools", "code", "self"),
    ),
    _Workload(
        "RAG or batch",
        "heavy prefill, short generation",
        {"kl": 1.0, "tg": 0.2, "pp": 1.0, "compression": 0.5},
    ),
    _Workload(
        "maximum context",
        "as many tokens as fit",
        {"kl": 1.0, "tg": 0.1, "pp": 0.1, "compression": 1.0, "context": 1.0},
        size="context",
        reference=False,
    ),
)
"""The workloads of the published table. The weights are a judgement; the figures stand beside."""

KL_WORTH = 0.04
"""Nats of mean KL that outweigh a figure e times as good."""


def advise(
    cells: Sequence[Cell],
    speeds: Sequence[SpeedCell],
    ceilings: Sequence[Ceiling] = (),
    *,
    by_cell: bool = False,
) -> tuple[Advice, ...]:
    """Advice for each workload for which there is a choice: two candidates at least.

    Args:
        by_cell: each pair was compared with itself on another build. That tells nothing about
            which pair is better: there is no advice then.
    """
    if by_cell:
        return ()
    timed = {cell.pair: cell for cell in speeds}
    searched = {ceiling.pair: ceiling for ceiling in ceilings}
    known = [
        figures
        for cell in cells
        if (figures := _figures(cell, timed.get(cell.pair), searched.get(cell.pair))) is not None
    ]
    return tuple(
        advice for workload in WORKLOADS if (advice := _for_workload(workload, known)) is not None
    )


def _figures(cell: Cell, speed: SpeedCell | None, ceiling: Ceiling | None) -> _Figures | None:
    """``None`` for a pair that failed, is off the fast path or the device, or is not known well."""
    if matrix_rows.worst_verdict(cell, speed, ceiling) != "pass" or cell.quality is None:
        return None
    if speed and any(test.declared for test in speed.tests):
        return None
    if cell.placement is not None and cell.placement.off_device:
        return None
    depth = max((test.n_depth for test in speed.tests), default=0) if speed else 0
    ratio = {
        test.kind: test.ratio for test in (speed.tests if speed else ()) if test.n_depth == depth
    }
    return _Figures(
        cell.pair,
        cell.quality.prefill.kl_mean,
        cell.census.compression_measured if cell.census is not None else None,
        ratio.get("pp"),
        ratio.get("tg"),
        depth,
        ceiling.tokens if ceiling is not None else None,
        {one.corpus: one.quality.kl_mean for one in cell.texts if one.quality is not None},
    )


def _on_its_text(workload: _Workload, known: Sequence[_Figures]) -> tuple[str, Sequence[_Figures]]:
    """The text that is likest to the work, of those that every pair was measured on, and the
    figures with the KL on it."""
    for wanted in workload.texts:
        for name in known[0].by_text if known else ():
            if name.partition(" ")[0] == wanted and all(name in one.by_text for one in known):
                return name, [one._replace(kl=one.by_text[name]) for one in known]
    return "", known


def _for_workload(workload: _Workload, known: Sequence[_Figures]) -> Advice | None:
    corpus, known = _on_its_text(workload, known)
    size = workload.size if all(one.context for one in known) else "compression"
    ratios = [name for name in ("tg", "pp", size) if any(_ratio(one, name) for one in known)]
    candidates = [one for one in known if all(_ratio(one, name) for name in ratios)]
    deepest = max((one.depth for one in candidates), default=0)
    candidates = [one for one in candidates if one.depth == deepest]
    if len(candidates) < 2:
        return None
    if not workload.reference:
        candidates = [one for one in candidates if one.pair != str(REFERENCE)]
    best = {name: max(_ratio(one, name) for one in candidates) for name in ratios}

    def loss(one: _Figures) -> float:
        behind = (
            workload.weights[name] * math.log(best[name] / _ratio(one, name)) for name in ratios
        )
        return workload.weights["kl"] * one.kl / KL_WORTH + sum(behind)

    front = [one for one in candidates if not any(_beats(two, one, ratios) for two in candidates)]
    ranked = sorted(front, key=lambda one: (loss(one), one.pair))
    return Advice(
        workload=workload.name,
        what=workload.what,
        best=ranked[0].pair,
        figures=("kl", *ratios),
        candidates=tuple(_candidate(one, loss) for one in ranked),
        corpus=corpus,
    )


def _candidate(one: _Figures, loss: Callable[[_Figures], float]) -> Candidate:
    return Candidate(
        pair=one.pair,
        kl=one.kl,
        compression_measured=one.compression,
        pp=one.pp,
        tg=one.tg,
        depth=one.depth,
        context=one.context,
        loss=loss(one),
    )


def _ratio(one: _Figures, name: str) -> float:
    """A ratio over f16/f16, or tokens; 0 where it is not known."""
    value: float | None = getattr(one, name)
    return value or 0.0


def _beats(one: _Figures, other: _Figures, ratios: Sequence[str]) -> bool:
    """At least as good in every figure, and better in one."""
    pairs = [(-one.kl, -other.kl), *((_ratio(one, name), _ratio(other, name)) for name in ratios)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
