"""The largest context, found under a real memory limit."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
from support import run
from support.tinygguf import Tiny, write

from pytest_kvquant.matrix import Pair

PAIR = Pair("q8_0", "q8_0")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 KiB of q8_0 cache a token or so: the ceiling is near."""
    path = tmp_path_factory.mktemp("models") / "wide.gguf"
    write(path, Tiny(n_layer=8, n_embd=32, n_head=16, n_head_kv=16, head_dim=256, n_vocab=300,
                     n_ff=32))  # fmt: skip
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces a memory limit")
def test_the_search_ends_within_five_percent_and_leaves_nothing_behind(
    tmp_path: Path, wide: Path
) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    speeds = run.start(
        tmp_path, model=wide, pairs=(str(PAIR),), memory_limit=0.4, ceiling_max=1 << 20
    ).speed
    found = speeds.ceiling(PAIR)
    outcomes = {one.context: one.outcome for one in found.attempts}
    failed = [context for context, outcome in outcomes.items() if outcome != "fits"]
    assert outcomes[found.tokens] == "fits"
    assert found.tokens < min(failed) <= max(found.tokens + 256, 1.05 * found.tokens)
    assert found.bytes_per_token == 8 * 2 * 16 * 8 * 34
    assert 0.5 * found.predicted < found.tokens < found.predicted
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


def test_no_larger_context_than_asked_for_is_tried(tmp_path: Path, wide: Path) -> None:
    speeds = run.start(tmp_path, model=wide, pairs=(str(PAIR),), ceiling_max=1000).speed
    found = speeds.ceiling(PAIR)
    assert [one.context for one in found.attempts] == [768]
    assert (found.tokens, found.bound) == (768, 768)
    assert found.text.startswith("768 tokens work, the largest tried")


def test_a_pair_that_never_works_says_why(tmp_path: Path) -> None:
    path = tmp_path / "narrow.gguf"
    write(path, Tiny(n_layer=1, n_embd=80, n_head=1, n_head_kv=1, head_dim=80, n_vocab=300))
    found = run.start(tmp_path, model=path, pairs=(str(PAIR),), ceiling_max=512).speed.ceiling(PAIR)
    assert found.tokens == 0
    assert "does not divide" in found.text
