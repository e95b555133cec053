"""Budgets: packaged tables, overlaid by the configuration."""

from __future__ import annotations

import itertools
import tomllib

import msgspec
import pytest

from pytest_kvquant.config.budgets import (
    DEFAULTS,
    IDENTICAL,
    Budgets,
    resolve_budgets,
    unused_patterns,
)
from pytest_kvquant.config.overrides import BudgetOverride
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import REFERENCE, Pair

COMMON = ("f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl",
          "turbo4", "turbo3", "turbo2", "tbq3", "iso3")  # fmt: skip
LADDER = ("q8_0", "q5_1", "q4_0", "turbo3", "turbo2")
"""From the finest to the coarsest."""


def budgets(pair: str, *, embedded: bool = True, **overrides: BudgetOverride) -> Budgets:
    return resolve_budgets(Pair.parse(pair), embedded=embedded, overrides=overrides)


def of(**figures: float) -> BudgetOverride:
    return BudgetOverride(**figures)


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize("k", COMMON)
def test_every_pair_has_budgets_that_can_be_used(k: str, embedded: bool) -> None:
    for v in COMMON:
        if (k, v) == REFERENCE:
            continue
        found = resolve_budgets(Pair(k, v), embedded=embedded, overrides={})
        assert 0 < found.kl_mean < 1
        assert 0 < found.kl_tail < 1
        assert 0 < found.top1_flips < 1
        assert found.kl_tail_over > found.kl_mean
        assert 0 < found.ln_ppl < 1
        assert found.decode_kl_mean >= found.kl_mean
        assert 0 <= found.trajectory <= 1


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize("fixed", ["q8_0", "q4_0"])
def test_coarser_types_are_allowed_more(fixed: str, embedded: bool) -> None:
    for side in ("{}/" + fixed, fixed + "/{}"):
        ladder = [budgets(side.format(name), embedded=embedded).kl_mean for name in LADDER]
        assert ladder == sorted(ladder)


@pytest.mark.parametrize("embedded", [True, False])
def test_no_line_of_the_tables_is_dead(embedded: bool) -> None:
    table = tomllib.loads(DEFAULTS.read_text())["embedded" if embedded else "other"]
    pairs = [Pair(*pair) for pair in itertools.product(COMMON, COMMON)]
    for pattern in table:
        assert any(pair.matches(pattern) for pair in pairs), pattern


def test_the_configuration_overlays_figure_by_figure() -> None:
    found = budgets("q8_0/q4_0", **{"q8_0/*": of(kl_mean=0.5), "*/q4_0": of(ln_ppl=0.25)})
    assert (found.kl_mean, found.ln_ppl) == (0.5, 0.25)
    assert found.top1_flips == budgets("q8_0/q4_0").top1_flips


def test_later_lines_win() -> None:
    assert (
        budgets("q8_0/q4_0", **{"*/*": of(kl_mean=0.1), "q8_0/*": of(kl_mean=0.2)}).kl_mean == 0.2
    )
    assert (
        budgets("q8_0/q4_0", **{"q8_0/*": of(kl_mean=0.2), "*/*": of(kl_mean=0.1)}).kl_mean == 0.1
    )


def test_zero_is_a_budget() -> None:
    assert budgets("q8_0/q4_0", **{"*/*": of(kl_mean=0.0)}).kl_mean == 0.0


def test_f16_stays_identical_whatever_the_configuration_says() -> None:
    assert budgets("f16/f16", **{"*/*": of(kl_mean=0.5)}) == IDENTICAL
    assert all(value in (0.0, 1.0, {}) for value in msgspec.structs.astuple(IDENTICAL))


def test_a_malformed_pattern_is_refused() -> None:
    with pytest.raises(SettingsError, match="'q8_0' is not a pair"):
        budgets("q8_0/q4_0", **{"q8_0": of(kl_mean=0.5)})


def test_patterns_without_a_cell_are_named() -> None:
    overrides = {"q8_0/*": of(), "q9_0/*": of(), "*/turbo?": of()}
    assert unused_patterns([REFERENCE, Pair("q8_0", "q4_0")], overrides) == ["q9_0/*", "*/turbo?"]
