"""Batch sizes out of bounds are looked at again: a jump of one text goes, a fault stays."""

from __future__ import annotations

import msgspec
import pytest

from pytest_kvquant.engine.messages.kernels import Rung
from pytest_kvquant.quality.second_look import doubtful, looked_again, repeated
from pytest_kvquant.results.kernels import CornerRecord, Examination, RungRecord


def examined(
    *own: tuple[int, int, float | None], cost: float = 1e-2, fused: float | None = None,
    backend: str = "CPU",
) -> Examination:  # fmt: skip
    """Rungs as (depth, tokens, own)."""
    corner = CornerRecord(
        operation="attention", backend=backend, nodes=1, failed=0, ratio=0, error=0, worst=0
    )
    rungs = tuple(
        RungRecord(depth=depth, tokens=tokens, own=figure, reference=cost, fused=fused)
        for depth, tokens, figure in own
    )
    return Examination(level="standard", corners=(corner,), rungs=rungs)


HEALTHY = ((0, 64, None), (0, 8, 1e-4), (250, 64, None), (250, 8, 1e-4), (250, 1, 1e-4))
JUMPED = (*HEALTHY[:3], (250, 8, 2.2e-2), (250, 1, 1e-4))


def test_a_size_out_of_bounds_is_looked_at_again_beside_the_largest_of_its_depth() -> None:
    assert doubtful(examined(*HEALTHY), None) == []
    assert doubtful(examined(*JUMPED), None) == [(250, [8, 64])]
    assert doubtful(examined(*HEALTHY), examined(*HEALTHY)) == []
    assert doubtful(examined(*JUMPED), examined(*HEALTHY)) == [(250, [8, 64])]


@pytest.mark.parametrize("own", [2.0, 1e30, float("nan")])
def test_what_no_jump_explains_is_not_excused(own: float) -> None:
    assert doubtful(examined((0, 64, None), (0, 8, own)), None) == []


def test_a_fused_kernel_is_looked_at_again_where_kernels_round_otherwise() -> None:
    rungs = ((0, 64, None), (0, 8, 1e-4))
    assert doubtful(examined(*rungs, fused=0.02, backend="CUDA0"), None) == [(0, [8, 64])]
    assert doubtful(examined(*rungs, fused=0.02), None) == []  # on a CPU no bit may change


@pytest.mark.parametrize(("second", "kept"), [(2e-4, 2e-4), (5e-2, 2.2e-2)])
def test_the_smaller_of_both_figures_is_judged(second: float, kept: float) -> None:
    found = examined(*JUMPED)
    seen = [
        Rung(depth=250, tokens=64, own=None, reference=None, fused=None),
        Rung(depth=250, tokens=8, own=second, reference=None, fused=None),
    ]
    rungs = {(one.depth, one.tokens): one for one in looked_again(found.rungs, seen)}
    assert rungs[250, 8].own == kept
    assert rungs[250, 8].looks == 2
    assert rungs[250, 64].own is None
    assert rungs[250, 1] == found.rungs[-1]


def seen_again(own: float | None, tokens: int = 8) -> list[Rung]:
    return [
        Rung(depth=250, tokens=64, own=None, reference=None, fused=None),
        Rung(depth=250, tokens=tokens, own=own, reference=None, fused=None),
    ]


def test_the_same_text_must_give_the_same_figure_again_on_a_cpu() -> None:
    found = examined(*JUMPED)
    assert repeated(found, None, seen_again(2.2e-2)) == found.rungs
    rungs = {(one.depth, one.tokens): one for one in repeated(found, None, seen_again(1e-5))}
    assert (rungs[250, 8].own, rungs[250, 8].unsteady) == (2.2e-2, 1e-5)
    marked = msgspec.structs.replace(found, rungs=tuple(rungs.values()))
    assert doubtful(marked, None) == []  # other tokens would not excuse it


def test_what_is_out_of_bounds_only_the_second_time_is_unsteady_too() -> None:
    rungs = {one.tokens: one for one in repeated(examined(*HEALTHY), None, seen_again(3e-2))}
    assert (rungs[8].own, rungs[8].unsteady) == (3e-2, 1e-4)


def test_within_bounds_a_last_bit_may_differ() -> None:
    found = examined(*HEALTHY)
    assert repeated(found, None, seen_again(2e-4)) == found.rungs
