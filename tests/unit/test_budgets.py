"""Budgets: packaged tables, overlaid by the configuration."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping

import msgspec
import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.budget import Budget, Budgets
from pytest_kvquant.checks.budgets import (
    DEFAULTS,
    drift_budgets,
    identical,
    owned_budgets,
    resolve_budgets,
    rounded_reference,
)
from pytest_kvquant.checks.declaration import ATTRIBUTE, Figures, Given, gate
from pytest_kvquant.checks.judging import owned_gates
from pytest_kvquant.checks.kl_mean import judge_kl_mean
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.metrics import Quality
from pytest_kvquant.results.cell import Cell, QualitySection
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.session.bounds import unused_patterns
from pytest_kvquant.session.calibration import budgets as calibrated

COMMON = ("f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl",
          "turbo4", "turbo3", "turbo2", "tbq3", "iso3")  # fmt: skip
LADDER = ("q8_0", "q5_1", "q4_0", "turbo3", "turbo2")
"""From the finest to the coarsest."""


def budgets(pair: str, *, embedded: bool = True, **overrides: Mapping[str, float]) -> Budgets:
    return resolve_budgets(Pair.parse(pair), embedded=embedded, overrides=overrides)


def of(**figures: float) -> Mapping[str, float]:
    return figures


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize("k", COMMON)
def test_every_pair_has_budgets_that_can_be_used(k: str, embedded: bool) -> None:
    for v in COMMON:
        if (k, v) == REFERENCE:
            continue
        found = resolve_budgets(Pair(k, v), embedded=embedded, overrides={})
        assert 0 < found["kl_mean"] < 1
        assert 0 < found["kl_tail"] < 1
        assert 0 < found["top1_flips"] < 1
        assert found["kl_tail_over"] > found["kl_mean"]
        assert 0 < found["ln_ppl"] < 1
        assert found["decode_kl_mean"] >= found["kl_mean"]
        assert 0 <= found["trajectory"] <= 1


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize("fixed", ["q8_0", "q4_0"])
def test_coarser_types_are_allowed_more(fixed: str, embedded: bool) -> None:
    for side in ("{}/" + fixed, fixed + "/{}"):
        ladder = [budgets(side.format(name), embedded=embedded)["kl_mean"] for name in LADDER]
        assert ladder == sorted(ladder)


@pytest.mark.parametrize("embedded", [True, False])
def test_no_line_of_the_tables_is_dead(embedded: bool) -> None:
    table = tomllib.loads(DEFAULTS.read_text())["embedded" if embedded else "other"]
    pairs = [Pair(*pair) for pair in itertools.product(COMMON, COMMON)]
    for pattern in table:
        assert any(pair.matches(pattern) for pair in pairs), pattern


def test_the_configuration_overlays_figure_by_figure() -> None:
    found = budgets("q8_0/q4_0", **{"q8_0/*": of(kl_mean=0.5), "*/q4_0": of(ln_ppl=0.25)})
    assert (found["kl_mean"], found["ln_ppl"]) == (0.5, 0.25)
    assert found["top1_flips"] == budgets("q8_0/q4_0")["top1_flips"]


def test_later_lines_win() -> None:
    first, second = {"*/*": of(kl_mean=0.1)}, {"q8_0/*": of(kl_mean=0.2)}
    assert budgets("q8_0/q4_0", **first, **second)["kl_mean"] == 0.2
    assert budgets("q8_0/q4_0", **second, **first)["kl_mean"] == 0.1


def test_zero_is_a_budget() -> None:
    assert budgets("q8_0/q4_0", **{"*/*": of(kl_mean=0.0)})["kl_mean"] == 0.0


def test_f16_stays_identical_whatever_the_configuration_says() -> None:
    assert budgets("f16/f16", **{"*/*": of(kl_mean=0.5)}) == identical()
    assert set(identical().values()) == {0.0, 1.0}


def test_a_malformed_pattern_is_refused() -> None:
    with pytest.raises(SettingsError, match="'q8_0' is not a pair"):
        budgets("q8_0/q4_0", **{"q8_0": of(kl_mean=0.5)})


def test_patterns_without_a_cell_are_named() -> None:
    overrides = {"q8_0/*": of(), "q9_0/*": of(), "*/turbo?": of()}
    assert unused_patterns([REFERENCE, Pair("q8_0", "q4_0")], overrides) == ["q9_0/*", "*/turbo?"]


def test_every_key_of_the_tables_is_declared() -> None:
    table = tomllib.loads(DEFAULTS.read_text())
    for section, rows in table.items():
        for pattern, row in rows.items():
            unknown = row.keys() - registry.budget_units().keys()
            assert not unknown, f"[{section}] {pattern}: no gate or check declares {unknown}"


@pytest.fixture
def new(monkeypatch: pytest.MonkeyPatch) -> str:
    """The key of a gate's budget that is declared in one place and named nowhere else."""

    @gate("kl_q99", title="99th percentile of KL", test="test_kl_q99",
          budget=Budget("kl_q99", "nats", default=0.5),
          per_chunk=lambda tokens: float(tokens.kl.max()))  # fmt: skip
    def kl_q99(seen: Figures, given: Given) -> Gate:
        """One token in a hundred may have a KL of this much."""
        return judge_kl_mean(seen["kl_q99"], given.budgets["kl_q99"], given.rules)

    every = (*registry.declared(), getattr(kl_q99, ATTRIBUTE))
    monkeypatch.setattr(registry, "declared", lambda: every)
    return "kl_q99"


def test_a_new_budget_is_declared_in_one_place(new: str) -> None:
    assert budgets("f16/f16")[new] == 0.0
    assert budgets("q8_0/q4_0")[new] == 0.5
    assert budgets("q8_0/q4_0", **{"q8_0/*": of(kl_q99=0.1)})[new] == 0.1
    assert drift_budgets(Pair("q8_0", "q4_0"), [], {"*/*": of(kl_q99=0.2)})[new] == 0.2
    assert rounded_reference()[new] == 0.5, "f16/f16 would fail by the file's rounding alone"


def test_calibrate_writes_a_new_budget(new: str) -> None:
    figures = dict.fromkeys(Quality.__struct_fields__, 0.0) | {"chunks": 2, "tokens": 512}
    quality = msgspec.convert(figures, Quality, strict=False)
    cell = Cell(pair="q4_0/q4_0", verdict="pass", per_chunk={new: (0.1, 0.1)},
                quality=QualitySection(prefill=quality))  # fmt: skip
    assert calibrated(cell, 2.0, 0.0)[new] == pytest.approx(0.2)


def test_a_new_budget_counts_where_somebody_set_it(new: str) -> None:
    pair = Pair("q8_0", "q4_0")
    nobody = owned_budgets(pair, {}, every=False)
    others = owned_gates(nobody)
    assert new not in others
    mine = owned_gates(owned_budgets(pair, {"*/*": of(kl_q99=1)}, every=False))
    assert mine == {*others, new}
    assert new in owned_gates(owned_budgets(pair, {}, every=True))


def test_a_gate_whose_author_stands_for_its_budget_counts_everywhere(
    new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair("q8_0", "q4_0")
    before = owned_gates(owned_budgets(pair, {}, every=False))
    *others, last = registry.declared()
    stands = last._replace(budgets=(last.budgets[0]._replace(always=True),))
    monkeypatch.setattr(registry, "declared", lambda: (*others, stands))
    assert owned_gates(owned_budgets(pair, {}, every=False)) == {*before, new}


def test_a_gate_that_does_not_say_what_rounding_costs_is_refused() -> None:
    with pytest.raises(TypeError, match="neither default= nor rounded="):
        gate("x", title="x", test="test_x", budget=Budget("x", "nats"))


def test_two_budgets_of_one_name_are_refused(new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *others, last = registry.declared()
    taken = last._replace(budgets=(Budget("kl_mean", "nats", default=1.0),))
    monkeypatch.setattr(registry, "declared", lambda: (*others, taken))
    with pytest.raises(SettingsError, match="'kl_q99' declares a budget 'kl_mean'"):
        registry.budgets()
