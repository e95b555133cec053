"""The reading of a probe: figures in, suspects out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pytest_kvquant.checks.diagnosis import LOGITS, diagnose
from pytest_kvquant.results.diagnosis import (
    ALLOWED,
    STRAY,
    Diagnosis,
    LayerFigures,
    PathKL,
    PatternRecord,
)

HEALTHY = PathKL(prefill=0.002, decode=0.002, expected=0.001)


def one(path: str, layer: int, side: str, **changes: Any) -> LayerFigures:
    """A healthy field of the map."""
    plain: dict[str, Any] = {
        "path": path, "layer": layer, "clean": layer == 0, "side": side, "type": "q4_0",
        "rotation": 64, "rows": 200, "first": 0, "last": 199, "heads": 2, "blocks": 4,
        "equal": 0.99, "nmse": 5e-5 if layer == 0 else 0.01, "rounding": 7e-3, "explained": 5e-5,
        "gram": 5e-3, "expected": None if layer == 0 else 0.008,
    }  # fmt: skip
    return LayerFigures(**{**plain, **changes})


def table(changes: dict[tuple[str, int, str], dict[str, Any]] | None = None) -> list[LayerFigures]:
    """Three layers, both sides, both paths; healthy but for ``changes``."""
    return [
        one(path, layer, side, **(changes or {}).get((path, layer, side), {}))
        for side in "KV"
        for layer in range(3)
        for path in ("prefill", "decode")
    ]


def pattern(**changes: Any) -> PatternRecord:
    plain: dict[str, Any] = {
        "units": tuple(range(8)), "heads": (0, 1), "blocks": (0, 1, 2, 3), "first": 0,
        "last": 199, "share": 1.0, "holds": "other", "value": None,
    }  # fmt: skip
    return PatternRecord(**{**plain, **changes})


def read(
    changes: dict[tuple[str, int, str], dict[str, Any]] | None = None,
    logits: PathKL | None = HEALTHY,
) -> Diagnosis:
    return diagnose(table(changes), logits, failed=True)


def test_a_healthy_cell_that_passes_is_healthy() -> None:
    assert diagnose(table(), HEALTHY, failed=False).verdict == "healthy"


def test_a_healthy_cell_that_fails_is_explained_by_its_rounding() -> None:
    found = read()
    assert (found.verdict, found.suspects) == ("rounding", ())
    assert any("1.2 times as far" in line for line in found.fits)


def test_without_a_played_cell_nothing_is_said_of_later_layers() -> None:
    figures = [msgspec.structs.replace(one, expected=None) for one in table()]
    found = diagnose(figures, msgspec.structs.replace(HEALTHY, expected=None), failed=True)
    assert found.verdict == "not localized"
    assert "no healthy cell was emulated" in found.sentence


def test_the_bound_of_the_first_layer_is_a_multiple_of_what_rounding_explains() -> None:
    under = read({("decode", 0, "V"): {"nmse": 0.99 * ALLOWED * 5e-5}})
    over = read({("decode", 0, "V"): {"nmse": 1.01 * ALLOWED * 5e-5}})
    assert under.verdict == "rounding"
    named = over.suspects[0]
    assert (named.kernel, named.side, named.path) == ("quantizer", "V", "decode")
    assert named.confidence == "medium"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_wrong(value: float) -> None:
    assert read({("prefill", 0, "K"): {"nmse": value}}).suspects[0].side == "K"
    strayed = {("prefill", 1, side): {"nmse": value} for side in "KV"}
    assert read(strayed).suspects[0].kernel == "attention"


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            pattern(units=(0, 2, 4, 6), blocks=(0, 2), first=128),
            "K rows of layer 0 differ from the reference quantizer in every second block from "
            "position 128 on, by prefill only: look at set-rows for q4_0 with more than 128 "
            "tokens.",
        ),
        (
            pattern(units=(4, 5, 6, 7), heads=(1,), holds="head", value=-1),
            "K rows of layer 0 hold what belongs 1 head back in head 1, by prefill only: look at "
            "set-rows for q4_0.",
        ),
        (
            pattern(units=(1,), heads=(0,), blocks=(1,), holds="scaled", value=-1.0, last=99),
            "K rows of layer 0 have the opposite sign in block 1 of head 0 at positions 0 to 99, "
            "by prefill only: look at set-rows for q4_0.",
        ),
        (
            pattern(holds="rotation", value=1, share=0.5),
            "K rows of layer 0 are not rotated (elsewhere by a Hadamard matrix of 64) in 50 % of "
            "the rows, by prefill only: look at set-rows for q4_0.",
        ),
        (
            pattern(holds="type", value="iq4_nl"),
            "K rows of layer 0 are quantized as iq4_nl, by prefill only: look at set-rows for "
            "q4_0.",
        ),
    ],
)
def test_sentences(found: PatternRecord, sentence: str) -> None:
    changes = {("prefill", 0, "K"): {"nmse": 1.0, "pattern": found}}
    assert read(changes).sentence == sentence


def test_k_and_v_with_the_same_fault_are_one_suspect() -> None:
    wrong = {"nmse": 1.0, "pattern": pattern(holds="zero")}
    both = read({(path, 0, side): wrong for path in ("prefill", "decode") for side in "KV"})
    assert [(one.side, one.path) for one in both.suspects] == [("both", "both")]
    apart = read({("prefill", 0, "K"): wrong, ("decode", 0, "V"): wrong})
    assert [(one.side, one.path) for one in apart.suspects] == [("K", "prefill"), ("V", "decode")]


def test_strayed_rows_blame_the_attention_before_them() -> None:
    far = {"nmse": 3 * STRAY * 0.008}
    found = read({("decode", layer, side): far for layer in (1, 2) for side in "KV"})
    assert [(one.kernel, one.side, one.path, one.layers) for one in found.suspects] == [
        ("attention", "both", "decode", (0,))
    ]
    assert "with one token" in found.sentence


def test_a_wrong_quantizer_explains_what_strays_after_it() -> None:
    far = {("prefill", layer, side): {"nmse": 1.0} for layer in (1, 2) for side in "KV"}
    found = read({**far, ("prefill", 0, "V"): {"nmse": 1.0}})
    assert [one.kernel for one in found.suspects] == ["quantizer"]


def test_one_side_that_strays_alone_was_stored_wrongly() -> None:
    found = read({("prefill", 1, "K"): {"nmse": 0.5}})
    named = found.suspects[0]
    assert (named.kernel, named.side, named.layers) == ("quantizer", "K", (1,))


def test_right_rows_and_wrong_logits_blame_the_last_attention() -> None:
    wrong = PathKL(prefill=0.002, decode=2 * LOGITS * 0.001, expected=0.001)
    named = read(logits=wrong).suspects[0]
    assert (named.kernel, named.path, named.layers) == ("attention", "decode", (2,))


def test_in_an_unknown_basis_products_of_rows_decide() -> None:
    unknown = {"rotation": None, "nmse": 2.0}
    hidden = {(path, 0, "K"): unknown for path in ("prefill", "decode")}
    assert read(hidden).verdict == "rounding"
    wrong = {key: {**unknown, "gram": 0.5} for key in hidden}
    assert read(wrong).suspects[0].side == "K"


def test_no_first_layer_no_suspect() -> None:
    figures = [msgspec.structs.replace(one, clean=False, expected=None) for one in table()]
    found = diagnose(figures, None, failed=True)
    assert found.verdict == "not localized"
    assert "which layer comes first" in found.sentence


def test_records_survive_json() -> None:
    found = read({("prefill", 0, "K"): {"nmse": 1.0, "pattern": pattern(holds="zero")}})
    assert msgspec.json.decode(msgspec.json.encode(found), type=Diagnosis) == found
