"""The simulation behind the error rates: its rules are those of the gates, one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_kvquant.checks.family import holm_exit, settled
from pytest_kvquant.checks.kl_mean import judge_kl_mean
from pytest_kvquant.checks.kl_tail import judge_kl_tail
from pytest_kvquant.checks.ln_ppl_ratio import judge_ln_ppl
from pytest_kvquant.checks.top1_flips import judge_top1_flips
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Gate
from tools.error_rates import chunks
from tools.error_rates.__main__ import BEGIN, END
from tools.error_rates.decisions import conclude, family, kl_mean, ln_ppl, share
from tools.error_rates.table import FAULTY, GATES, HEALTHY, ROUTES, Route, simulate

RULES = {route.name: route.rules for route in ROUTES}
PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"
FIGURES = 20


def judged(cells: chunks.Cells, row: int, rules: Rules) -> list[Gate]:
    """A cell by the gates themselves, drawing chunk by chunk as a run does."""
    found: list[Gate] = []
    for n in range(1, rules.cap + 1):
        kl, tail, ln, flips = (column[row, :n] for column in cells[:4])
        found = [
            judge_kl_mean(kl, chunks.KL_BUDGET, rules),
            judge_kl_tail(tail, chunks.TAIL_BUDGET, rules, m_tok=chunks.TOKENS, over=1.0, kl=kl),
            judge_ln_ppl(ln, chunks.LN_BUDGET, rules),
            judge_top1_flips(flips, chunks.FLIP_BUDGET, rules, m_tok=chunks.TOKENS, kl=kl),
        ]
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
    every: list[Gate] = []
    for row in range(cells):
        alone = judged(drawn, row, rules)
        every += alone
        for gate, outcome in zip(alone, outcomes, strict=True):
            assert outcome.passed[row] == (gate.verdict == "pass"), gate
            assert outcome.failed[row] == (gate.verdict == "fail"), gate
            assert outcome.p[row] == pytest.approx(gate.p_value, rel=1e-6), gate
    stands = family(outcomes, 1, len(every), rules.alpha)
    assert stands.tolist() == [any(holm_exit(every, rules.alpha))]


def test_figures_of_a_level_have_that_mean() -> None:
    for concentrated in (False, True):
        cells = chunks.draw(np.random.default_rng(3), 400, 128, 0.9, concentrated=concentrated)
        assert cells.kl.mean() == pytest.approx(0.9 * chunks.KL_BUDGET, rel=0.05)
        assert cells.tail.mean() == pytest.approx(0.9 * chunks.TAIL_BUDGET, rel=0.05)
        assert np.abs(cells.ln_ppl.mean(axis=1)).mean() == pytest.approx(
            0.9 * chunks.LN_BUDGET, rel=0.1
        )


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_healthy_matrices_fail_in_at_most_one_run_of_a_hundred(route: Route) -> None:
    """Every figure of every pair exactly on its budget; 200 matrices, so 6 are within chance."""
    found = simulate(route, 1.0, 1.0, concentrated=False, matrices=200)
    assert found.failed <= 6


def test_a_pair_far_beyond_its_budgets_is_caught_and_never_passes() -> None:
    found = simulate(ROUTES[1], 2.0, 0.5, concentrated=False, matrices=100)
    assert found.failed == 100
    assert found.all_passed == 0


def test_the_page_has_the_table_of_these_routes() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    for route in ROUTES:
        assert text.count(f"| {route.name} |") == 2 * (len(HEALTHY) + len(FAULTY))
    assert "2,000 matrices" in text
    assert len(GATES) == 5
