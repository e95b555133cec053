"""The simulation behind the error rates: its rules are those of the gates, one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pytest_kvquant.checks import healthy, registry
from pytest_kvquant.checks.declaration import Given
from pytest_kvquant.checks.family import holm_exit, settled
from pytest_kvquant.checks.kernel_names import KERNEL_GATES
from pytest_kvquant.checks.kl_mean import judge_kl_mean
from pytest_kvquant.checks.kl_tail import judge_kl_tail
from pytest_kvquant.checks.ln_ppl_ratio import judge_ln_ppl
from pytest_kvquant.checks.top1_flips import judge_top1_flips
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Gate
from tools.error_rates import beside, chunks, matrices
from tools.error_rates.__main__ import BEGIN, END
from tools.error_rates.decisions import (
    Outcome,
    Rulings,
    conclude,
    family,
    kl_mean,
    ln_ppl,
    share,
)
from tools.error_rates.matrices import BOTH, KERNEL, ROUTES, WITHIN, Judged, Route, simulate
from tools.error_rates.ratios import by_ratio
from tools.error_rates.table import FAULTY, GROSS, HEALTHY

RULES = {route.name: route.rules for route in ROUTES}
PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"
FIGURES = 20


def judged(cells: chunks.Cells, row: int, rules: Rules) -> list[Gate]:
    """A cell by the gates themselves, drawing chunk by chunk as a run does."""

    def gates(n: int) -> list[Gate]:
        kl, tail, ln, flips = (column[row, :n] for column in cells[:4])
        return [
            judge_kl_mean(kl, chunks.KL_BUDGET, rules),
            judge_kl_tail(tail, chunks.TAIL_BUDGET, rules, m_tok=chunks.TOKENS, over=1.0, kl=kl),
            judge_ln_ppl(ln, chunks.LN_BUDGET, rules),
            judge_top1_flips(flips, chunks.FLIP_BUDGET, rules, m_tok=chunks.TOKENS, kl=kl),
        ]

    return _drawing(gates, rules)


def judged_beside(cells: beside.Beside, row: int, rules: Rules) -> list[Gate]:
    """The same beside the healthy cell."""

    def gates(n: int) -> list[Gate]:
        kl, kl_healthy, tail, tail_healthy, shift, flips, flips_healthy = (
            column[row, :n] for column in cells[:7]
        )
        return [
            healthy.ratio_gate("kl_ratio", kl, kl_healthy, rules, healthy.KL),
            healthy.ratio_gate("kl_tail_ratio", tail, tail_healthy, rules, healthy.TAIL),
            judge_ln_ppl(shift, healthy.shift_limits(kl_healthy, 0.0), rules),
            healthy.ratio_gate("top1_flips_ratio", flips, flips_healthy, rules, healthy.FLIPS),
        ]

    return _drawing(gates, rules)


def _drawing(gates: Callable[[int], list[Gate]], rules: Rules) -> list[Gate]:
    found: list[Gate] = []
    for n in range(1, rules.cap + 1):
        found = gates(n)
        if rules.early and all(settled(gate, FIGURES) for gate in found):
            break
    return found


@pytest.mark.parametrize("concentrated", [False, True])
@pytest.mark.parametrize("level", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("name", ["quick", "pr", "`--kv-chunks 32`"])
def test_many_cells_are_decided_as_one(name: str, level: float, concentrated: bool) -> None:
    rules = RULES[name]
    _same(rules, level, concentrated=concentrated, cells=4)


@pytest.mark.parametrize("level", [0.9, 1.0, 1.2])
def test_the_census_of_many_cells_is_that_of_one(level: float) -> None:
    _same(Rules(cap=48, census=True), level, concentrated=False, cells=4)


def _same(rules: Rules, level: float, *, concentrated: bool, cells: int) -> None:
    rng = np.random.default_rng([7, round(10 * level), concentrated])
    drawn = chunks.draw(rng, cells, rules.cap, level, concentrated=concentrated)
    outcomes = conclude(
        [
            kl_mean(drawn.kl, chunks.KL_BUDGET, rules),
            share(drawn.tail, chunks.TAIL_BUDGET, rules, tokens=chunks.TOKENS, least=4.0),
            ln_ppl(drawn.ln_ppl, chunks.LN_BUDGET, rules),
            share(drawn.flips, chunks.FLIP_BUDGET, rules, tokens=chunks.TOKENS, least=1.5),
        ],
        rules,
        FIGURES,
    )
    _alike([judged(drawn, row, rules) for row in range(cells)], outcomes, rules)


@pytest.mark.parametrize("concentrated", [False, True])
@pytest.mark.parametrize("level", [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("name", ["quick", "pr", "`--kv-chunks 32`"])
def test_many_cells_are_decided_beside_the_healthy_one_as_one(
    name: str, level: float, concentrated: bool
) -> None:
    rules, cells = RULES[name], 4
    rng = np.random.default_rng([8, round(10 * level), concentrated])
    drawn = beside.draw(rng, cells, rules.cap, level, concentrated=concentrated)
    batched, _ = matrices.beside_the_healthy(drawn, rules)
    outcomes = conclude([*batched.values()], rules, FIGURES)
    _alike([judged_beside(drawn, row, rules) for row in range(cells)], outcomes, rules)


def _alike(found: list[list[Gate]], outcomes: list[Outcome], rules: Rules) -> None:
    every: list[Gate] = []
    for row, alone in enumerate(found):
        every += alone
        for gate, outcome in zip(alone, outcomes, strict=True):
            assert outcome.passed[row] == (gate.verdict == "pass"), gate
            assert outcome.failed[row] == (gate.verdict == "fail"), gate
            assert outcome.p[row] == pytest.approx(gate.p_value, rel=1e-6), gate
    stands = family(outcomes, 1, len(every), rules.alpha)
    assert stands.tolist() == [any(holm_exit(every, rules.alpha))]


def test_what_costs_as_little_as_f16_is_decided_as_one() -> None:
    """No healthy flip in any chunk: there is no ratio, and the floor decides."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.choice([0.0, 1 / 255, 2 / 255], (6, 8)), np.zeros((6, 8))
    ours[0], ours[1] = 0.0, 2 / 255
    rules = RULES["quick"]
    rulings: Rulings = by_ratio(ours, theirs, healthy.FLIPS, rules)
    for row in range(6):
        gate = healthy.ratio_gate("flips", ours[row], theirs[row], rules, healthy.FLIPS)
        assert (rulings.fails[row] < rulings.passes[row]) == (gate.verdict == "fail")
        assert rulings.p[row, -1] == pytest.approx(gate.p_value)


def test_figures_of_a_level_have_that_mean() -> None:
    for concentrated in (False, True):
        cells = chunks.draw(np.random.default_rng(3), 400, 128, 0.9, concentrated=concentrated)
        assert cells.kl.mean() == pytest.approx(0.9 * chunks.KL_BUDGET, rel=0.05)
        assert cells.tail.mean() == pytest.approx(0.9 * chunks.TAIL_BUDGET, rel=0.05)
        assert np.abs(cells.ln_ppl.mean(axis=1)).mean() == pytest.approx(
            0.9 * chunks.LN_BUDGET, rel=0.1
        )


@pytest.mark.parametrize("judged", [KERNEL, BOTH], ids=lambda judged: judged.words)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_healthy_matrices_fail_in_at_most_one_run_of_a_hundred(
    route: Route, judged: Judged
) -> None:
    """Every figure of every pair exactly on its limit; 200 matrices, so 6 are within chance."""
    found = simulate(route, judged, 1.0, 1.0, concentrated=False, matrices=200)
    assert found.failed <= 6


@pytest.mark.parametrize("judged", [KERNEL, BOTH], ids=lambda judged: judged.words)
def test_a_pair_far_beyond_is_caught_and_never_passes(judged: Judged) -> None:
    found = simulate(ROUTES[1], judged, 2.0, 0.5, concentrated=False, matrices=100)
    assert found.failed == 100
    assert found.all_passed == 0


def test_the_page_has_the_table_of_these_routes() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    missed = 2 * 2 * len(FAULTY) + len(GROSS)
    for route in ROUTES:
        assert text.count(f"| {route.name} |") == 2 * 2 + missed
    assert "2,000 matrices" in text
    assert text.count(" × | even |") == len(ROUTES) * (2 * len(FAULTY) + len(GROSS))
    assert f"| {' | '.join(f'{one:g} ×' for one in HEALTHY)} |" in text
    assert set(KERNEL.gates) == set(KERNEL_GATES.values())


def test_the_rule_of_every_gate_is_simulated() -> None:
    """A gate that decides by a rule errs as often as the simulated one of that rule."""
    simulated = {registry.find(name) for name in WITHIN}
    assert None not in simulated
    rules = {one.rule for one in simulated if one is not None}
    assert {one.rule for one in registry.gates()} <= rules


class Everywhere(defaultdict[str, chunks.F64]):
    """Whatever figure a gate asks for, it is these."""


@pytest.mark.parametrize("one", registry.gates(), ids=lambda one: one.name)
def test_a_gate_decides_by_the_rule_that_it_declares(one: registry.Declaration) -> None:
    rules = Rules(cap=32, early=True)
    drawn = chunks.draw(np.random.default_rng(5), 1, 32, 1.5, concentrated=False)
    x, limit, ruling = {
        "mean": lambda: (drawn.kl, chunks.KL_BUDGET, kl_mean),
        "share": lambda: (drawn.tail, chunks.TAIL_BUDGET, partial(share, tokens=255, least=4.0)),
        "two-sided mean": lambda: (drawn.ln_ppl, chunks.LN_BUDGET, ln_ppl),
    }[str(one.rule)]()
    budgets = {budget.key: limit for budget in registry.budgets()}
    found = one.judge(Everywhere(lambda: x[0]), Given(budgets, rules, chunks.TOKENS))
    assert found.p_value < 0.2
    assert found.p_value == pytest.approx(ruling(x, limit, rules).p[0, found.chunks - 1], rel=1e-6)
