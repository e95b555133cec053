"""The largest context, found under a real memory limit."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import msgspec
import psutil
import pytest
from support import run
from support.tinygguf import Tiny, write

from pytest_kvquant.config.overrides import FloorOverride
from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.inputs import geometry
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.session.speed import SpeedRun
from pytest_kvquant.speed.methods import find_ways

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
    swap, room = psutil.swap_memory().used, 400_000_000
    speeds = run.start(
        tmp_path, model=wide, pairs=(str(PAIR),), memory_limit=room / 1e9, ceiling_max=1 << 20
    ).speed
    found = speeds.ceiling(PAIR)
    outcomes = {one.context: one.outcome for one in found.attempts}
    failed = [context for context, outcome in outcomes.items() if outcome != "fits"]
    assert outcomes[found.tokens] == "fits"
    assert found.tokens < min(failed) <= max(found.tokens + 256, 1.05 * found.tokens)
    assert found.bytes_per_token == 8 * 2 * 16 * 8 * 34
    assert 0.5 * found.predicted < found.tokens < found.predicted
    assert found.limited
    assert (found.batch, found.ubatch, found.sequences) == (2048, 512, 64)
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before
    assert psutil.swap_memory().used - swap < 0.1 * room, "a tenth is for others on this machine"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces a memory limit")
def test_the_search_has_a_memory_limit_of_its_own(tmp_path: Path, wide: Path) -> None:
    """``--kv-ceiling-memory``: of the search alone; without it ``--kv-memory-limit`` counts."""

    def speeds(name: str, **limits: float) -> SpeedRun:
        return run.start(
            tmp_path / name, model=wide, pairs=(str(PAIR),), ceiling_max=1 << 20, **limits
        ).speed

    own = speeds("own", memory_limit=1.0, ceiling_memory=0.3)
    both = speeds("both", memory_limit=0.3)
    found, same = own.ceiling(PAIR), both.ceiling(PAIR)
    assert found.limited
    assert found.memory == same.memory == 300_000_000
    assert found.tokens == pytest.approx(same.tokens, rel=0.05)
    assert own.setup.memory_limit == 1_000_000_000, "pairs are timed under the other"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces a memory limit")
def test_a_floor_within_the_precision_of_the_search_is_tried_itself(
    tmp_path: Path, wide: Path
) -> None:
    def search(floor: int) -> Ceiling:
        speeds = run.start(
            tmp_path / str(floor), model=wide, pairs=(str(PAIR),), memory_limit=0.3,
            ceiling_max=1 << 20, floors={"*/*": FloorOverride(context=floor)},
        ).speed  # fmt: skip
        return speeds.ceiling(PAIR).against(floor)

    near = search(1).tokens + 64
    found = search(near)
    assert near in {one.context for one in found.attempts}, found.failure
    assert found.verdict != "inconclusive"


def test_no_larger_context_than_asked_for_is_tried(tmp_path: Path, wide: Path) -> None:
    speeds = run.start(tmp_path, model=wide, pairs=(str(PAIR),), ceiling_max=1000).speed
    found = speeds.ceiling(PAIR)
    assert [one.context for one in found.attempts] == [768]
    assert (found.tokens, found.bound) == (768, 768)
    assert found.text.startswith("768 tokens work, the largest tried")


def test_a_context_smaller_than_a_step_is_tried_as_it_is(tmp_path: Path, wide: Path) -> None:
    speeds = run.start(tmp_path, model=wide, pairs=(str(PAIR),), ceiling_max=100).speed
    found = speeds.ceiling(PAIR)
    assert [(one.context, one.outcome) for one in found.attempts] == [(100, "fits")]
    assert (found.tokens, found.bound, found.sequences) == (100, 100, 4)


def test_a_pair_that_never_works_says_why_at_once(tmp_path: Path) -> None:
    path = tmp_path / "narrow.gguf"
    write(path, Tiny(n_layer=1, n_embd=80, n_head=1, n_head_kv=1, head_dim=80, n_vocab=300))
    speeds = run.start(tmp_path, model=path, pairs=(str(PAIR),), ceiling_max=1 << 16).speed
    found = speeds.ceiling(PAIR)
    assert [one.context for one in found.attempts] == [1 << 16, 256]
    assert (found.tokens, found.sequences) == (0, 0)
    assert "does not divide" in found.text


WINDOWED = Tiny(arch="gemma3", n_layer=8, n_embd=32, n_head=16, n_head_kv=16, head_dim=256,
                n_vocab=300, n_ff=32, window=64, window_period=4)  # fmt: skip
HYBRID = Tiny(arch="lfm2", n_layer=2, n_embd=64, n_head=2, n_head_kv=2, head_dim=32, n_vocab=300)


@pytest.mark.parametrize(("window", "period"), [(64, 4), (600, 3)])
@pytest.mark.parametrize(("ctx", "ubatch"), [(256, 512), (1024, 512), (2048, 128)])
def test_the_library_allocates_what_geometry_says_of_windows(
    tmp_path: Path, window: int, period: int, ctx: int, ubatch: int
) -> None:
    shape = dataclasses.replace(WINDOWED, window=window, window_period=period)
    setup = run.start(
        tmp_path, model=write(tmp_path / "m.gguf", shape), pairs=(str(PAIR),), gpu_layers=0
    ).speed.setup
    with Worker(setup.engine) as worker:
        worker.library(setup.engine.directory)
        worker.model(setup.model.path, gpu_layers=setup.gpu_layers)
        worker.open(PAIR, BatchShape(ctx=ctx, scored=1, sequences=1, batch=2048, ubatch=ubatch,
                                threads=1))  # fmt: skip
        sizes = re.findall(r"KV buffer size = +([\d.]+) MiB", worker.log_text())
    assert len(sizes) == 2
    types = msgspec.to_builtins(setup.library.types)
    need = geometry.need(setup.model, PAIR, types, ubatch=ubatch)
    assert sum(map(float, sizes)) == pytest.approx(need.least(ctx) / 2**20, abs=0.011)


def test_windows_are_not_counted_as_if_they_held_every_token(tmp_path: Path) -> None:
    """Of f16, 16 layers would take 268 MB for 1,024 tokens; the 15 with a window hold 256."""
    shape = dataclasses.replace(WINDOWED, n_layer=16, window_period=16)
    session = run.start(
        tmp_path, model=write(tmp_path / "m.gguf", shape), pairs=(str(REFERENCE), str(PAIR)),
        memory_limit=0.25, ceiling_max=1024, ubatch=128, depths=(960,), pp=64, tg=0, gpu_layers=0,
    )  # fmt: skip
    found = session.speed.ceiling(REFERENCE)
    assert found.bytes_per_token * 1024 > found.memory
    assert (found.tokens, found.bound, found.sequences) == (1024, 1024, 1)
    assert found.predicted > 1024
    assert found.text.endswith(
        "MiB hold at 262,144 bytes per token, 245,760 of them for 256 tokens only"
    )
    ways = find_ways(PAIR, session.speed.plan, session.speed.setup)
    assert [way.method for way in ways.visited] == ["interleaved"]


COUNTING = """
decoded, told = Context.decode, worker.channel.send
log = open({path!r}, "a", buffering=1)


def decode(self, tokens, *rest):
    print("decoded", len(tokens), file=log)
    return decoded(self, tokens, *rest)


def send(name, *rest, **fields):
    print(name, file=log)
    return told(name, *rest, **fields)


Context.decode, worker.channel.send = decode, send
"""


def test_a_long_prefill_is_no_silence(tmp_path: Path) -> None:
    """A hybrid is prefilled to the end, in the batches of the run; each is a sign of life."""
    log = tmp_path / "log"
    session = run.start(
        tmp_path, model=write(tmp_path / "hybrid.gguf", HYBRID), pairs=(str(PAIR),),
        hook=COUNTING.format(path=str(log)), ceiling_max=1024, batch=600, ubatch=300,
    )  # fmt: skip
    found = session.speed.ceiling(PAIR)
    assert (found.tokens, found.batch, found.ubatch, found.sequences) == (1024, 600, 300, 1)
    said = log.read_text().splitlines()
    begun = said.index("decoded 124")
    assert said[begun:] == ["decoded 124", "alive", *["decoded 300", "alive"] * 3, "context_tried"]


HANGING = """
import time

opened = Context.__init__


def init(self, model, *, ctx, sequences, **rest):
    time.sleep(3600 if ctx * sequences > 256 else 0)
    opened(self, model, ctx=ctx, sequences=sequences, **rest)


Context.__init__ = init
"""


def test_silence_is_no_limit_of_memory(tmp_path: Path, wide: Path) -> None:
    found = run.start(
        tmp_path, model=wide, pairs=(str(PAIR),), hook=HANGING, timeout=8, ceiling_max=512
    ).speed.ceiling(PAIR)
    assert [(one.context, one.outcome) for one in found.attempts] == [
        (512, "timeout"), (256, "fits"),
    ]  # fmt: skip
    assert (found.tokens, found.undecided) == (256, 512)
    assert found.text.startswith("256 tokens work, 512 took too long to tell,")
