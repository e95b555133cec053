"""A ceiling that was really searched, against a floor: as a test, in the result, merged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support import run
from support.tinygguf import Tiny, write

from pytest_kvquant.config.overrides import FloorOverride
from pytest_kvquant.matrix import Pair
from pytest_kvquant.outcomes.memory import CellMemory
from pytest_kvquant.report import view
from pytest_kvquant.report.html import render
from pytest_kvquant.report.markdown import summary
from pytest_kvquant.session.merge import merge
from pytest_kvquant.session.run import Session

PAIR = Pair("q8_0", "q8_0")
SMALL = Tiny(n_layer=1, n_embd=32, n_head=1, n_head_kv=1, head_dim=32, n_ff=32, n_vocab=300)


class Node:
    """As much of a test item as a ceiling is reported to."""

    def __init__(self) -> None:
        self.user_properties: list[tuple[str, object]] = []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.gguf"
    write(path, SMALL)
    return path


def started(tmp_path: Path, small: Path, floor: int | None, **settings: Any) -> Session:
    floors = {str(PAIR): FloorOverride(context=floor)} if floor else {}
    return run.start(
        tmp_path, model=small, pairs=(str(PAIR),), floors=floors, ceiling_max=512, **settings
    )


def ceiling(session: Session, pair: Pair = PAIR) -> dict[str, object]:
    node = Node()
    CellMemory(session, pair, node).check_ceiling()  # type: ignore[arg-type]
    return dict(node.user_properties)


@pytest.mark.parametrize("floor", [None, 512])
def test_a_context_as_large_as_its_floor_passes(
    tmp_path: Path, small: Path, floor: int | None
) -> None:
    session = started(tmp_path, small, floor)
    assert ceiling(session) == {"kv_ceiling": 512}
    (found,) = session.result().ceilings
    assert (found.verdict, found.floor) == ("pass", floor or 1)
    assert "512 tokens work" in summary(session.result())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces a memory limit")
def test_a_context_floor_that_memory_cannot_hold_fails_everywhere(
    tmp_path: Path, small: Path
) -> None:
    # Weights and all need more than a megabyte of address space: no context works at all.
    session = started(tmp_path, small, 512, memory_limit=0.001)
    with pytest.raises(pytest.fail.Exception, match=r"the floor is 512\n +512  "):
        ceiling(session)
    result = session.result()
    (found,) = result.ceilings
    assert (found.verdict, found.tokens) == ("fail", 0)
    assert view.run_tone(result) == "bad"
    assert view.headline(result).endswith(f"0 of 1 cells pass; 1 fail ({PAIR}).")
    for text in (summary(result), render(result)):
        assert "the floor is 512" in text
        assert "no context works" in text
    assert view.run_tone(merge([("a", result)])) == "bad"


def test_a_floor_beyond_what_was_tried_stays_open(tmp_path: Path, small: Path) -> None:
    session = started(tmp_path, small, 4096)
    with pytest.raises(pytest.skip.Exception, match=r"the largest tried.*the floor is 4,096"):
        ceiling(session)
    assert view.run_tone(session.result()) == "open"
    strict = started(tmp_path, small, 4096, strict=True)
    with pytest.raises(pytest.fail.Exception, match="the floor is 4,096"):
        ceiling(strict)
    assert view.run_tone(strict.result()) == "bad"


def test_of_two_results_of_a_pair_the_one_that_fails_counts(tmp_path: Path, small: Path) -> None:
    good, bad = started(tmp_path, small, None), started(tmp_path, small, 4096)
    good.ceiling(PAIR)
    bad.ceiling(PAIR)
    for order in ((good, bad), (bad, good)):
        (found,) = merge([("x", one.result()) for one in order]).ceilings
        assert found.verdict == "inconclusive"
