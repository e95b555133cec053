"""Matrices simulated by route and level, and the two tables that come of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.checks.kl_tail import TAIL_DESIGN_EFFECT
from pytest_kvquant.checks.top1_flips import FLIP_DESIGN_EFFECT
from pytest_kvquant.numerics.rules import Rules
from tools.error_rates import chunks
from tools.error_rates.chunks import Cells, draw
from tools.error_rates.decisions import Outcome, conclude, family, kl_mean, ln_ppl, share

MATRICES = 2000
QUANTIZED = 15
"""Cells of the default matrix beside ``f16/f16``, which is exact and passes everything."""

GATES = ("kl_mean", "kl_tail", "ln_ppl_ratio", "top1_flips", "decode_kl_mean")
BATCH = 250
"""Matrices at a time: the memory that one takes."""


class Route(NamedTuple):
    """A way to a verdict."""

    name: str
    rules: Rules
    cells: int = QUANTIZED
    """Quantized cells in the run."""

    @property
    def figures(self) -> int:
        """Gated figures of the run: those of ``f16/f16`` count."""
        return len(GATES) * (self.cells + 1)


ROUTES = (
    Route("quick", Rules(cap=8)),
    Route("pr", Rules(cap=32)),
    Route("nightly, with its census", Rules(cap=128, census=True)),
    Route("`--kv-chunks 32`", Rules(cap=32, early=False)),
    Route("pr, one pair by `-k`", Rules(cap=32), cells=1),
)
HEALTHY, FAULTY = (0.5, 0.9, 1.0), (1.2, 1.5, 2.0)


class Tally(NamedTuple):
    """What came of the matrices of one scenario."""

    failed: int
    """Matrices that fail."""
    passed: npt.NDArray[np.int64]
    """Times that the last cell of a matrix passed each gate, in the order of :data:`GATES`."""
    all_passed: int
    """Times that it passed all of them."""


def render(matrices: int = MATRICES) -> str:
    """Both tables, in markdown."""
    false_alarms = [
        "| route | all figures at | spread | runs that fail | 95 % |",
        "|---|--:|---|--:|---|",
    ]
    missed = [
        "| route | one pair at | spread | runs that fail | it passes | KL | tail | ln PPL | flips "
        "| decode |",
        "|---|--:|---|" + "--:|" * 7,
    ]
    for route in ROUTES:
        for concentrated in (False, True):
            where = "one chunk in 32" if concentrated else "even"
            for level in HEALTHY:
                found = simulate(route, level, level, concentrated=concentrated, matrices=matrices)
                low, high = _exact(found.failed, matrices)
                false_alarms.append(
                    f"| {route.name} | {level:g} × | {where} | {100 * found.failed / matrices:.2f} "
                    f"% | {low:.2f} to {high:.2f} |"
                )
            for level in FAULTY:
                found = simulate(route, level, 0.5, concentrated=concentrated, matrices=matrices)
                rates = [100 * count / matrices for count in (found.all_passed, *found.passed)]
                missed.append(
                    f"| {route.name} | {level:g} × | {where} | {100 * found.failed / matrices:.1f} "
                    f"% | " + " | ".join(f"{rate:.1f} %" for rate in rates) + " |"
                )
    return "\n".join(
        [
            f"{matrices:,} matrices of 16 pairs a line; every figure of every pair on its level:",
            "",
            *false_alarms,
            "",
            "One pair beyond its budgets in all five figures, the others at half of theirs; how "
            "often it passes all of them, and each:",
            "",
            *missed,
        ]
    )


def simulate(
    route: Route, last: float, others: float, *, concentrated: bool, matrices: int, seed: int = 0
) -> Tally:
    """Judge matrices whose last cell is at ``last`` budgets, the others at ``others``.

    Args:
        concentrated: where the excess sits; of all cells when they are alike, else of the last.
    """
    rng = np.random.default_rng([seed, round(1000 * last), round(1000 * others), concentrated])
    failed, every = 0, 0
    passed = np.zeros(len(GATES), np.int64)
    for start in range(0, matrices, BATCH):
        count = min(BATCH, matrices - start)
        outcomes = _judge(_matrices(rng, route, last, others, concentrated, count), route)
        failed += int(family(outcomes, count, route.figures, route.rules.alpha).sum())
        of_last = np.stack([one.passed.reshape(count, -1)[:, -1] for one in outcomes])
        passed += of_last.sum(axis=1)
        every += int(of_last.all(axis=0).sum())
    return Tally(failed, passed, every)


def _matrices(
    rng: np.random.Generator,
    route: Route,
    last: float,
    others: float,
    concentrated: bool,
    count: int,
) -> Cells:
    if last == others:
        return draw(rng, count * route.cells, route.rules.cap, last, concentrated=concentrated)
    rest = draw(rng, count * (route.cells - 1), route.rules.cap, others, concentrated=False)
    one = draw(rng, count, route.rules.cap, last, concentrated=concentrated)

    def joined(a: chunks.F64, b: chunks.F64) -> chunks.F64:
        size = a.shape[-1] if len(a) else b.shape[-1]
        whole = np.concatenate([a.reshape(count, -1, size), b.reshape(count, 1, size)], axis=1)
        return whole.reshape(-1, size)

    return Cells(*(joined(a, b) for a, b in zip(rest, one, strict=True)))


def _judge(cells: Cells, route: Route) -> list[Outcome]:
    rules = route.rules
    batched = [
        kl_mean(cells.kl, chunks.KL_BUDGET, rules),
        share(
            cells.tail,
            chunks.TAIL_BUDGET,
            rules,
            tokens=chunks.TOKENS,
            least=TAIL_DESIGN_EFFECT,
        ),
        ln_ppl(cells.ln_ppl, chunks.LN_BUDGET, rules),
        share(
            cells.flips,
            chunks.FLIP_BUDGET,
            rules,
            tokens=chunks.TOKENS,
            least=FLIP_DESIGN_EFFECT,
        ),
    ]
    found = conclude(batched, rules, route.figures)
    once = Rules(cap=chunks.DECODED, early=False)
    decode = kl_mean(cells.decode, 2 * chunks.KL_BUDGET, once)
    return [*found, *conclude([decode], once, route.figures)]


def _exact(hits: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson, 95 %, in percent."""
    from scipy.stats import binomtest  # type: ignore[import-untyped, unused-ignore]

    interval = binomtest(hits, n).proportion_ci()
    return 100 * float(interval.low), 100 * float(interval.high)
