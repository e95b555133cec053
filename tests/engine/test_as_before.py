"""A run of the first schema, upgraded, and the same run now: what both say is the same.

``golden/embedded/schema-1.json`` is what the version before the floors measured of the embedded
model: 3 pairs, 4 chunks of 256 tokens, seed 3, one thread. On the build and processor that it was
taken on, every figure that exists in both is equal to the last few bits; elsewhere, other kernels
of llama.cpp round otherwise, and figures are equal as far as that lets them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.interrupted import timeless
from support.run import measure

from pytest_kvquant.results.file import encode, read
from pytest_kvquant.results.result import Result

GOLDEN = Path(__file__).parents[1] / "golden" / "embedded" / "schema-1.json"
PAIRS = "f16/f16 q8_0/q8_0 f16/q4_0"

MEANT = {
    "e_value": "of a count fixed in advance the e-value is that of all chunks, no longer the "
    "largest on the way, which one may only look at where one may stop",
    "question": "whether a kernel is right and a cell fit to use became two questions",
    "kernel": "its answer",
    "fitness": "its answer",
    "healthy": "the emulated cell that answers it",
    "quantizers": "what types cost by themselves is told beside",
    "process": "how a cell was kept apart is told",
    "baseline": "where files lie",
    "diagnosis": "in other words; its verdict is compared",
    "text": "words may change, figures may not",
    "rule": "likewise",
}
"""Keys of a cell that differ, and why."""

BY_NAME = {"checks", "gates"}
"""Lists whose entries are found by their name."""

SAME_MACHINE, OTHER_MACHINE = 1e-9, 0.1
"""Most relative difference. The sums over a row are taken in another order since then."""


@pytest.fixture(scope="module")
def before() -> Result:
    return read(GOLDEN)


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return measure(
        tmp_path_factory.mktemp("now"), PAIRS, ctx=256, chunks=4, seed=3, threads=1, speed="off",
        probe="always", recall=0, zoo="off",
    )  # fmt: skip


def shared(old: Any, new: Any, at: str = "", key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Place, value before and value now of everything that both have."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() & new.keys() - MEANT.keys():
            yield from shared(old[name], new[name], f"{at}/{name}", name)
    elif key in BY_NAME:
        found = {one["name"]: one for one in new if isinstance(one, dict)}
        for one in old:
            yield from shared(one, found.get(one["name"]), f"{at}/{one['name']}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from shared(*pair, f"{at}/{number}")
    else:
        yield at, old, new


def is_equal(old: Any, new: Any, within: float) -> bool:
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (old, new))
    return math.isclose(old, new, rel_tol=within, abs_tol=1e-12) if numbers else bool(old == new)


def cells(result: Result) -> list[tuple[str, dict[str, Any]]]:
    whole = timeless(json.loads(encode(result)))
    return [(one["pair"], one) for one in whole["cells"]]


def test_what_was_measured_is_the_same(before: Result, now: Result) -> None:
    assert now.corpus.tokens_hash == before.corpus.tokens_hash
    assert now.corpus.chunks == before.corpus.chunks
    shape = json.loads(encode(before))["settings"]
    found = json.loads(encode(now))["settings"]
    assert {name: found[name] for name in shape if name != "setup"} == {
        name: value for name, value in shape.items() if name != "setup"
    }


def test_every_figure_that_both_have_is_the_same(before: Result, now: Result) -> None:
    library, other = now.environment.library, before.environment.library
    if (library.hash, now.environment.cpu) != (other.hash, before.environment.cpu):
        pytest.skip("another build or processor than that of the golden file")
    compared, differing = 0, []
    for (pair, old), (_, new) in zip(cells(before), cells(now), strict=True):
        for at, one, two in shared(old, new, pair):
            compared += 1
            if not is_equal(one, two, SAME_MACHINE):
                differing.append((at, one, two))
    assert compared > 700
    assert differing == []


def test_the_figures_are_the_same_as_far_as_processors_let_them(
    before: Result, now: Result
) -> None:
    for old, new in zip(before.cells, now.cells, strict=True):
        assert old.quality is not None
        assert new.quality is not None
        assert (new.pair, new.verdict) == (old.pair, old.verdict)
        one, two = old.quality.prefill, new.quality.prefill
        assert two.kl_mean == pytest.approx(one.kl_mean, rel=OTHER_MACHINE)
        assert two.ppl == pytest.approx(one.ppl, rel=1e-3)
        assert two.top1 == pytest.approx(one.top1, abs=0.01)
        assert two.tokens == one.tokens
        assert [gate.verdict for gate in old.gates] == [
            gate.verdict for gate in new.gates if gate.name in {one.name for one in old.gates}
        ]
        assert new.census == old.census
        assert (new.diagnosis and new.diagnosis.verdict) == (
            old.diagnosis and old.diagnosis.verdict
        )
