"""Budgets from figures: above what was measured, above the noise, readable by the plugin itself."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.budgets import resolve_budgets
from pytest_kvquant.config.resolver import resolve
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.metrics import Quality
from pytest_kvquant.results.cell import Cell, Check, QualitySection
from pytest_kvquant.session.calibration import _rounded, budgets, unfit


def quality(**figures: float) -> Quality:
    usual = {name: 0.0 for name in Quality.__struct_fields__}
    usual |= {"tokens": 8000, "chunks": 32, "kl_mean": 0.01, "kl_mean_chunk_se": 0.001,
              "kl_p99": 0.09, "ln_ppl_ratio": -0.003, "ln_ppl_ratio_chunk_se": 0.001,
              "top1": 0.95} | figures  # fmt: skip
    return msgspec.convert(usual, Quality, strict=False)


def cell(**figures: float) -> Cell:
    return Cell(pair="q4_0/q4_0", verdict="pass", per_chunk={"flips": (0.02, 0.04)},
                quality=QualitySection(prefill=quality(**figures)))  # fmt: skip


def test_budgets_are_the_margin_over_the_unfavourable_end() -> None:
    found = budgets(cell(), 2.0, 0.0)
    assert found["kl_mean"] == pytest.approx(2 * (0.01 + 2.6 * 0.001), rel=0.1)
    assert found["kl_tail_over"] == pytest.approx(0.18, rel=0.1)
    assert found["ln_ppl"] == pytest.approx(2 * 0.0056, rel=0.1)
    assert 0.06 <= found["top1_flips"] < 0.08


def test_what_cannot_be_measured_is_no_budget() -> None:
    assert budgets(cell(), 2.0, 0.01)["kl_mean"] >= 0.1
    assert budgets(cell(kl_mean=0.0, kl_mean_chunk_se=0.0), 2.0, 0.0)["kl_mean"] == 1e-4


@given(st.floats(1e-9, 1e3))
def test_rounding_goes_up_and_not_far(value: float) -> None:
    assert value * (1 - 1e-9) <= _rounded(value) <= 1.11 * value


def test_unfit_pairs_have_a_reason() -> None:
    assert unfit(cell()) == ""
    assert "another model" in unfit(cell(kl_mean=0.6))
    assert "a quarter" in unfit(cell(top1=0.6))
    spoilt = Check(name="attention", verdict="fail", text="head 3 is off by 1 %")
    assert unfit(msgspec.structs.replace(cell(), checks=(spoilt,))) == "it fails attention"
    shift = Check(name="operations", verdict="fail", text="shift_head: crashed")
    assert unfit(msgspec.structs.replace(cell(), checks=(shift,))) == "", "its figures are right"
    crashed = Cell(pair="q4_0/q4_0", verdict="crashed", message="SIGSEGV\nmore")
    assert unfit(crashed) == "crashed: SIGSEGV"


def test_the_plugin_reads_what_was_written(tmp_path: Path) -> None:
    values = budgets(cell(), 2.0, 0.0)
    lines = [f"{name} = {value:g}" for name, value in values.items()]
    text = '[budgets."q4_0/q4_0"]\n' + "\n".join(lines) + "\n"
    assert tomllib.loads(text)
    (tmp_path / "kvquant.toml").write_text(text)
    settings = resolve({}, config=None, root=tmp_path, budgets=registry.budget_units())
    pair = Pair("q4_0", "q4_0")
    found = resolve_budgets(pair, embedded=False, overrides=settings.budgets)
    assert found["kl_mean"] == values["kl_mean"]
