"""One sentence that names the kernel, the batch sizes, the side and the length."""

from __future__ import annotations

import pytest

from pytest_kvquant.checks.located import locate
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.kernels import (
    CornerRecord,
    Examination,
    NodeFailure,
    ScenarioRecord,
)

SIZES = (1, 2, 4, 8, 32, 512)


def corner(operation: str, tokens: int, length: int, *, wrong: bool, **more: str) -> CornerRecord:
    return CornerRecord(
        operation=operation, tokens=tokens, length=length, nodes=2, failed=2 * wrong,
        ratio=9.0 if wrong else 0.1, error=0, worst=0, **more,
    )  # type: ignore[arg-type]  # fmt: skip


def failure(operation: str, text: str, reproducer: str | None = None) -> NodeFailure:
    return NodeFailure(
        operation=operation, layer=0, node="n", tokens=1, text=text, ratio=9.0,
        reproducer=reproducer,
    )  # fmt: skip


def cell(found: Examination, *failing: str) -> Cell:
    checks = tuple(Check(name=name, verdict="fail", text=f"{name} is wrong") for name in failing)
    return Cell(pair="q8_0/q4_0", verdict="fail", kernels=found, checks=checks)


def attention(wrong: set[tuple[int, int]], text: str = "") -> Cell:
    corners = [
        corner("attention", tokens, length, wrong=(tokens, length) in wrong)
        for tokens in SIZES
        for length in (256, 512)
    ]
    corners.append(corner("rope", 1, 0, wrong=False))
    failures = (failure("attention", text, "node.npz"),)
    return cell(Examination(level="standard", corners=tuple(corners), failures=failures))


K_SIDE = "head 1, NMSE 5e-05; scores off by +0.98%, values by +0.01%"
V_SIDE = "head 1, NMSE 5e-05; scores off by -0.01%, values by +1.00%"


@pytest.mark.parametrize(
    ("wrong", "text", "sentence"),
    [
        (
            {(tokens, 512) for tokens in (2, 4, 8)}, K_SIDE,
            "decode, 2 to 8 query tokens, K side, head 1, from cache length 256: attention kernel",
        ),
        (
            {(1, 256), (1, 512)}, V_SIDE,
            "decode, 1 query token, V side, head 1: attention kernel",
        ),
        (
            {(tokens, length) for tokens in (32, 512) for length in (256, 512)}, "NMSE 1",
            "prefill, 32 to 512 query tokens: attention kernel",
        ),
        (
            {(tokens, length) for tokens in SIZES for length in (256, 512)}, "NMSE 1",
            "decode and prefill, every batch size: attention kernel",
        ),
        (
            {(2, 256), (2, 512), (8, 256), (8, 512)}, "NMSE 1",
            "decode, 2, 8 query tokens: attention kernel",
        ),
    ],
)  # fmt: skip
def test_a_sentence(wrong: set[tuple[int, int]], text: str, sentence: str) -> None:
    found = locate(attention(wrong, text))
    assert found is not None
    assert found.sentence == sentence
    assert "kvquant reproduce node.npz" in found.evidence


def test_a_write_names_its_side_and_type() -> None:
    corners = (
        corner("write", 3, 0, wrong=True, k_type="q8_0"),
        corner("write", 8, 0, wrong=False, k_type="q8_0"),
        corner("write", 3, 0, wrong=False, v_type="q4_0"),
    )
    found = locate(cell(Examination(level="standard", corners=corners)))
    assert found is not None
    assert found.sentence == "decode, 3 query tokens, K side: cache write (set-rows) for q8_0"


def test_what_comes_first_in_the_graph_is_named_and_the_rest_is_evidence() -> None:
    corners = tuple(
        corner(operation, 1, 0, wrong=True) for operation in ("attention", "rope", "mask")
    )
    found = locate(cell(Examination(level="standard", corners=corners)))
    assert found is not None
    assert found.operation == "mask"
    assert found.evidence == ("also wrong: rope", "also wrong: attention kernel")


def test_rows_that_go_to_other_cells_are_a_cache_write() -> None:
    corners = (corner("parameters", 1, 0, wrong=True),)
    told = (failure("parameters", "V of layer 0 is written to other cells than its K"),)
    found = locate(cell(Examination(level="standard", corners=corners, failures=told)))
    assert found is not None
    assert found.sentence == "decode, 1 query token: cache write (set-rows)"


def test_the_quantizer_comes_before_all() -> None:
    found = locate(cell(Examination(level="standard"), "quantizer"))
    assert found is not None
    assert found.operation == "quantizer"


def test_what_no_node_shows_is_named_by_the_test_that_saw_it() -> None:
    played = ScenarioRecord(name="seq_add", title="a shift", verdict="fail", text="")
    found = locate(cell(Examination(level="standard", scenarios=(played,)), "operations"))
    assert found is not None
    assert found.sentence == "after a shift: cache operation"
    for name in ("fused", "ladder"):
        one = locate(cell(Examination(level="standard"), name))
        assert one is not None
        assert one.operation == name


def test_nothing_wrong_names_nothing() -> None:
    assert locate(attention(set())) is None
    assert locate(Cell(pair="q8_0/q4_0", verdict="fail")) is None
