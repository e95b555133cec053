"""What is missing, broken or undecided is never a pass."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.active import check_active
from pytest_kvquant.checks.distinct import check_distinct, twins, unseen_twins
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.measurable import check_measurable
from pytest_kvquant.checks.shapes import check_shapes
from pytest_kvquant.checks.trajectory import check_trajectory
from pytest_kvquant.config.resolver import find_root, resolve
from pytest_kvquant.errors import ReferenceBroken, SettingsError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.drift import drift
from pytest_kvquant.numerics.rounds import RoundRules, decide, is_cliff, judge_absolute
from pytest_kvquant.quality.prefill import require_numbers
from pytest_kvquant.results import nonfinite
from pytest_kvquant.results.cell import Cell, CensusRecord, LayerRecord, NoiseFloor

NAN = math.nan


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_active(Pair("q8_0", "q8_0"), True, NAN, 1e-5),
        lambda: check_active(Pair("q8_0", "q8_0"), True, 1e-3, NAN),
        lambda: check_measurable(0.02, NAN),
        lambda: check_trajectory(NAN, 0.5, [1]),
        lambda: check_shapes({"alone": NAN, "restored": 0.0}, {}, 0.1)[0],
        lambda: check_shapes({"alone": 0.0, "restored": NAN}, {}, 0.1)[1],
        lambda: check_shapes({"alone": 0.0, "restored": 0.0}, {"alone": NAN}, 0.1)[0],
        lambda: fact("any", "pass", "fine", figure=math.inf, limit=1.0),
    ],
)
def test_a_check_on_what_is_no_number_does_not_pass(check: object) -> None:
    assert check().verdict in ("fail", "inconclusive")  # type: ignore[operator]


def census(kind: str, *layers: str) -> CensusRecord:
    return CensusRecord(
        layers=tuple(LayerRecord(k=name, v=name, k_row=1, v_row=1) for name in layers),
        bytes_per_token=1.0, expected_bytes_per_token=1, compression_expected=1.0,
        kind=kind, text=kind,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "two", "verdict"),
    [
        (census("agree", "q8_0"), census("agree", "q4_0"), "fail"),
        (census("agree", "q8_0"), census("agree", "q8_0"), "pass"),
        (census("unreadable"), census("unreadable"), "inconclusive"),
        (census("unreadable"), census("agree", "q4_0"), "inconclusive"),
    ],
)
def test_pairs_that_agree_to_the_bit(one: CensusRecord, two: CensusRecord, verdict: str) -> None:
    cells = [
        Cell(pair=pair, verdict="pass", digests=("a", "b"), census=seen)
        for pair, seen in (("q8_0/q8_0", one), ("q4_0/q4_0", two))
    ]
    found = check_distinct(twins(cells[0], cells), unseen_twins(cells[0], cells))
    assert found.verdict == verdict


def test_a_reference_that_is_no_number_is_named_and_a_masked_token_is_not() -> None:
    require_numbers(np.array([0.1, math.inf]), "chunk 0")
    with pytest.raises(ReferenceBroken, match=r"f16 reference itself .* \(chunk 3, row 1"):
        require_numbers(np.array([0.1, NAN]), "chunk 3")


class Figures(msgspec.Struct):
    one: float
    many: dict[str, float] = {}
    name: str | None = None


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf, 0.1])
def test_a_record_comes_back_with_what_is_no_number(value: float) -> None:
    data = nonfinite.encode(Figures(one=value, many={"a": value}, name="nan"))
    json.loads(data, parse_constant=pytest.fail)
    back = nonfinite.decode(data, Figures)
    for found in (back.one, back.many["a"]):
        assert found == value or (math.isnan(found) and math.isnan(value))
    assert back.name == "nan"


@pytest.mark.parametrize(
    "data", [b'{"one": "nan", "name": "null", "many": {"x": "1"}}', b'{"one": "none"}', b"[]"]
)
def test_words_are_read_where_numbers_stand_and_nothing_else_is(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        nonfinite.decode(data, Figures)


def test_a_floor_that_is_no_number_is_not_zero() -> None:
    assert math.isnan(nonfinite.worst([NAN, 0.0]))
    floor = NoiseFloor(kl=NAN, ubatch=1, threads=1, tie_band=NAN, shapes={})
    assert math.isnan(nonfinite.decode(nonfinite.encode(floor), NoiseFloor).kl)


FIGURES = {"kl": [0.01, 0.011], "ln_ppl": [0.001, 0.002], "top1": [0.99, 0.98]}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("value", [NAN, math.inf])
def test_what_is_no_number_never_compares_as_fine(name: str, value: float) -> None:
    """With a baseline or an earlier result, on either side and on both."""
    odd = {**FIGURES, name: [value, 0.5]}
    for before, after in ((FIGURES, odd), (odd, FIGURES), (odd, odd)):
        assert drift(before, after).verdict == "worse"


def test_a_speed_that_is_no_number_decides_nothing() -> None:
    rules = RoundRules(least=6, most=24, threshold=20.0)
    with pytest.raises(ValueError, match="not finite"):
        decide([NAN] * 24, 0.5, rules)
    assert not is_cliff([NAN, NAN, NAN])
    absolute = {"floor": 10.0, "stored_reference": 10.0, "steady": True}
    assert judge_absolute([NAN] * 20, [10.0] * 20, **absolute) != "pass"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["decode", "trajectory", "pp", "tg"])
def test_negative_counts_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"--kv-{name} must not be negative"):
        resolve({name: "-1"}, config=None, root=tmp_path, budgets=registry.budget_units())


def test_a_configuration_above_the_repository_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "kvquant.toml").write_text("ctx = 64\n")
    inner = tmp_path / "repository" / "folder"
    inner.mkdir(parents=True)
    assert find_root(inner) == tmp_path
    (tmp_path / "repository" / ".git").mkdir()
    assert find_root(inner) == inner


def test_a_configuration_above_the_home_folder_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kvquant.toml").write_text("ctx = 64\n")
    home = tmp_path / "home" / "me"
    (home / "work").mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: home)
    assert find_root(home / "work") == home / "work"
