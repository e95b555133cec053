"""Matrices simulated by route and level, and judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from pytest_kvquant.checks import healthy
from pytest_kvquant.checks.kl_tail import TAIL_DESIGN_EFFECT
from pytest_kvquant.checks.top1_flips import FLIP_DESIGN_EFFECT
from pytest_kvquant.numerics.rules import PROFILES, Rules
from pytest_kvquant.session.account import figures_per_cell
from tools.error_rates import beside, chunks
from tools.error_rates.beside import Beside
from tools.error_rates.chunks import F64, Cells
from tools.error_rates.decisions import Rulings, conclude, family, kl_mean, ln_ppl, share
from tools.error_rates.ratios import by_ratio

QUANTIZED = 15
"""Cells of the default matrix beside ``f16/f16``, which is exact and passes everything."""

BATCH = 250
"""Matrices at a time: the memory that one takes."""

ONCE = Rules(cap=chunks.DECODED, early=False)
"""Of the decode path."""


class Route(NamedTuple):
    """A way to a verdict."""

    name: str
    rules: Rules
    cells: int = QUANTIZED
    """Quantized cells in the run."""

    @property
    def figures(self) -> int:
        """Gated figures among which chance is corrected for: those of ``f16/f16`` count."""
        return figures_per_cell() * (self.cells + 1)


ROUTES = (
    Route("quick", PROFILES["quick"]),
    Route("pr", PROFILES["pr"]),
    Route("nightly, with its census", PROFILES["nightly"]),
    Route("`--kv-chunks 32`", Rules(cap=32, early=False)),
    Route("pr, one pair by `-k`", PROFILES["pr"], cells=1),
)


class Judged(NamedTuple):
    """By what cells are judged."""

    words: str
    gates: tuple[str, ...]


BESIDE = ("kl_ratio", "kl_tail_ratio", "ln_ppl_shift", "top1_flips_ratio", "decode_kl_ratio")
WITHIN = ("kl_mean", "kl_tail", "ln_ppl_ratio", "top1_flips", "decode_kl_mean")
KERNEL = Judged("beside the healthy cell", BESIDE)
"""The default on any model but ours."""
BOTH = Judged("and within budgets", (*WITHIN, *BESIDE))
"""With budgets of the owner's, or the embedded model."""


class Tally(NamedTuple):
    """What came of the matrices of one scenario."""

    failed: int
    """Matrices that fail."""
    passed: dict[str, int]
    """Times that the last cell of a matrix passed each gate."""
    all_passed: int
    """Times that it passed all of them."""


def simulate(
    route: Route,
    judged: Judged,
    last: float,
    others: float,
    *,
    concentrated: bool,
    matrices: int,
    seed: int = 0,
) -> Tally:
    """Judge matrices whose last cell is at the level ``last``, the others at ``others``.

    Args:
        concentrated: where the excess sits; of all cells when they are alike, else of the last.
    """
    rng = np.random.default_rng([seed, round(1000 * last), round(1000 * others), concentrated])
    failed, every = 0, 0
    passed = dict.fromkeys(judged.gates, 0)
    for start in range(0, matrices, BATCH):
        count = min(BATCH, matrices - start)

        def drawn(draw: Callable[..., Draws], count: int = count) -> Draws:
            return _matrices(rng, draw, route, last, others, concentrated, count)

        batched, decoded = beside_the_healthy(drawn(beside.draw), route.rules)
        if judged is BOTH:
            more, one = within_budgets(drawn(chunks.draw), route.rules)
            batched, decoded = more | batched, one | decoded
        outcomes = dict(zip(batched, conclude([*batched.values()], route.rules, route.figures),
                            strict=True))  # fmt: skip
        outcomes |= zip(decoded, conclude([*decoded.values()], ONCE, route.figures), strict=True)
        found = list(outcomes.values())
        failed += int(family(found, count, route.figures, route.rules.alpha).sum())
        of_last = {name: one.passed.reshape(count, -1)[:, -1] for name, one in outcomes.items()}
        for name, hits in of_last.items():
            passed[name] += int(hits.sum())
        every += int(np.all(list(of_last.values()), axis=0).sum())
    return Tally(failed, passed, every)


Draws = TypeVar("Draws", Cells, Beside)


def _matrices(
    rng: np.random.Generator,
    draw: Callable[..., Draws],
    route: Route,
    last: float,
    others: float,
    concentrated: bool,
    count: int,
) -> Draws:
    """Cells of ``count`` matrices, those of one in a row."""
    cap = route.rules.cap
    if last == others:
        return draw(rng, count * route.cells, cap, last, concentrated=concentrated)
    one = draw(rng, count, cap, last, concentrated=concentrated)
    if route.cells == 1:
        return one
    rest = draw(rng, count * (route.cells - 1), cap, others, concentrated=False)

    def joined(a: F64, b: F64) -> F64:
        size = a.shape[1]
        whole = np.concatenate([a.reshape(count, -1, size), b.reshape(count, 1, size)], axis=1)
        return whole.reshape(-1, size)

    return type(one)(*(joined(a, b) for a, b in zip(rest, one, strict=True)))


Gates = dict[str, Rulings]


def within_budgets(cells: Cells, rules: Rules) -> tuple[Gates, Gates]:
    """The absolute gates of the prefill path, and of the decode path."""
    tokens = chunks.TOKENS
    tail = share(cells.tail, chunks.TAIL_BUDGET, rules, tokens=tokens, least=TAIL_DESIGN_EFFECT)
    flips = share(cells.flips, chunks.FLIP_BUDGET, rules, tokens=tokens, least=FLIP_DESIGN_EFFECT)
    return {
        "kl_mean": kl_mean(cells.kl, chunks.KL_BUDGET, rules),
        "kl_tail": tail,
        "ln_ppl_ratio": ln_ppl(cells.ln_ppl, chunks.LN_BUDGET, rules),
        "top1_flips": flips,
    }, {"decode_kl_mean": kl_mean(cells.decode, 2 * chunks.KL_BUDGET, ONCE)}


def beside_the_healthy(cells: Beside, rules: Rules) -> tuple[Gates, Gates]:
    """The gates beside the healthy cell, of both paths."""
    limits = healthy.shift_limits(cells.kl_healthy, 0.0)
    return {
        "kl_ratio": by_ratio(cells.kl, cells.kl_healthy, healthy.KL, rules),
        "kl_tail_ratio": by_ratio(cells.tail, cells.tail_healthy, healthy.TAIL, rules),
        "ln_ppl_shift": ln_ppl(cells.shift, limits, rules),
        "top1_flips_ratio": by_ratio(cells.flips, cells.flips_healthy, healthy.FLIPS, rules),
    }, {"decode_kl_ratio": by_ratio(cells.decode, cells.decode_healthy, healthy.DECODE, ONCE)}
