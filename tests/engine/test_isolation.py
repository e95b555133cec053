"""A worker that is kept gives what a fresh one gives, or its cells are measured again, fresh.

What a cell could leave behind for the next one is planted in the real worker: other types, other
logits, memory that is not given back.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.run import cells_of, measure, start

from pytest_kvquant.engine.parent import workers as hiring
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.result import Result
from pytest_kvquant.session.compared import Compared

WIDE = {"kl_mean": 1.0, "kl_tail": 0.9, "ln_ppl": 1.0, "top1_flips": 0.9, "decode_kl_mean": 1.0,
        "trajectory": 0.0}  # fmt: skip
"""Budgets that every healthy cell keeps: whatever fails here was spoilt."""

SHORT = {"ctx": 64, "chunks": 4, "batch": 64, "ubatch": 64, "decode": 8, "trajectory": 4,
         "probe": "off", "threads": 1, "budgets": {"*/*": WIDE}}  # fmt: skip
PAIRS = "f16/f16 q8_0/q8_0 q4_0/q4_0 q8_0/f16"

AFTERWARDS = """
made = []

def after_a_cell():
    return any(pair != ("f16", "f16") for pair in made)

_make = Context.__init__

def opened(self, model, *, type_k, type_v, **shape):
    earlier = list(made)
    made.append((type_k, type_v))
    spoilt = any(pair == ("q8_0", "q8_0") for pair in earlier)
    {body}

Context.__init__ = opened
"""
"""A hook in which ``spoilt`` tells whether q8_0/q8_0 was opened in this process before."""

OTHER_TYPES = AFTERWARDS.format(
    body="""
    if spoilt and type_k == "q4_0":
        type_k = "q8_0"
    _make(self, model, type_k=type_k, type_v=type_v, **shape)
"""
)
OTHER_LOGITS = (
    AFTERWARDS.format(
        body="""
    _make(self, model, type_k=type_k, type_v=type_v, **shape)
    self.spoilt = spoilt
"""
    )
    + """
_plain = Context.decode

def decoded(self, *batch):
    logits = _plain(self, *batch)
    return logits * np.float32(1.001) if self.spoilt else logits

Context.decode = decoded
"""
)
LOST_MEMORY = AFTERWARDS.format(
    body="""
    if type_k == "q8_0":
        lost = bytearray(400 << 20)
        lost[::4096] = b"1" * len(lost[::4096])
        made.append(lost)
    _make(self, model, type_k=type_k, type_v=type_v, **shape)
"""
)


def cells(folder: Path, isolation: str, pairs: str = PAIRS, **options: Any) -> dict[str, Cell]:
    return cells_of(whole(folder, isolation, pairs, **options))


def whole(folder: Path, isolation: str, pairs: str = PAIRS, **options: Any) -> Result:
    return measure(folder, pairs, isolation=isolation, **{**SHORT, **options})


def figures(cell: Cell) -> tuple[object, ...]:
    """What a cell is judged by, but for the time it took."""
    return (
        cell.verdict, cell.digests, cell.per_chunk, cell.quality, cell.trajectory, cell.shapes,
        cell.census, [gate.verdict for gate in cell.gates],
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("isolation")


EMULATED = Compared.emulation


@pytest.fixture(scope="module", autouse=True)
def _nothing_open() -> Iterator[None]:
    """No healthy cells are emulated: four chunks leave the ratios to them open, and whatever is
    open is measured again, fresh."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compared, "emulation", None)
        yield


@pytest.fixture(scope="module")
def fresh(folder: Path) -> dict[str, Cell]:
    return cells(folder, "fresh")


def ways() -> list[str]:
    return ["warm", "fork"] if sys.platform == "linux" else ["warm"]


@pytest.mark.parametrize("isolation", ways())
@pytest.mark.parametrize("turn", [0, 2], ids=["in order", "in another order"])
def test_the_figures_are_those_of_fresh_processes(
    isolation: str, turn: int, folder: Path, fresh: dict[str, Cell]
) -> None:
    words = PAIRS.split()
    found = cells(folder, isolation, " ".join(words[turn:] + words[:turn]))
    assert {one.process for one in found.values()} == {isolation}
    assert {one.process for one in fresh.values()} == {"fresh"}
    for pair, cell in found.items():
        assert figures(cell) == figures(fresh[pair])
        assert cell.again == ""


def test_types_that_an_earlier_cell_changes_are_seen_and_measured_again(
    folder: Path, fresh: dict[str, Cell]
) -> None:
    found = cells(folder, "warm", hook=OTHER_TYPES)
    assert found["q4_0/q4_0"].again == "its verdict was 'substituted'"
    assert found["q4_0/q4_0"].process == "fresh"
    for pair, cell in found.items():
        assert figures(cell) == figures(fresh[pair])


def test_logits_that_an_earlier_cell_changes_are_seen_and_measured_again(
    folder: Path, fresh: dict[str, Cell]
) -> None:
    """q8_0/q8_0 spoils every context after it: f16 shows it right after that cell."""
    found = cells(folder, "warm", hook=OTHER_LOGITS)
    assert "f16 no longer gives the same logits" in found["q8_0/q8_0"].again
    for pair, cell in found.items():
        assert cell.digests == fresh[pair].digests


def test_f16_logits_that_an_open_cell_spoils_are_not_stored(tmp_path: Path) -> None:
    """The reference of the later chunks is computed while q8_0/q8_0 is open, and stays stored."""
    near = {"*/*": {**WIDE, "kl_mean": 0.0007}}  # open after the first look
    options: dict[str, Any] = {"chunks": None, "pairs": "q8_0/q8_0", "budgets": near}
    for name in ("warm", "fresh"):
        (tmp_path / name).mkdir()
    found = cells(tmp_path / "warm", "warm", hook=OTHER_LOGITS, **options)
    again = found["q8_0/q8_0"]
    assert "f16 no longer gives the same logits in its process, beside it" in again.again
    fresh = cells(tmp_path / "fresh", "fresh", **options)["q8_0/q8_0"]
    assert (again.digests, again.per_chunk) == (fresh.digests, fresh.per_chunk)


@pytest.mark.slow
def test_memory_that_is_not_given_back_is_seen(folder: Path, fresh: dict[str, Cell]) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux says what a process has of its own")
    found = cells(folder, "warm", "f16/f16 q8_0/q8_0", hook=LOST_MEMORY)
    assert "were not given back" in found["q8_0/q8_0"].again
    assert found["q8_0/q8_0"].digests == fresh["q8_0/q8_0"].digests
    failing = [check.name for check in found["q8_0/q8_0"].checks if check.verdict == "fail"]
    assert failing == ["steady_memory"]  # in a process of its own it is lost as well


def test_a_verdict_other_than_pass_is_of_a_fresh_process(folder: Path) -> None:
    budgets = {
        "*/*": WIDE,
        "q4_0/q4_0": {**WIDE, "kl_mean": 1e-6},
    }
    found = cells(folder, "warm", budgets=budgets)
    assert found["q4_0/q4_0"].verdict == "fail"
    assert found["q4_0/q4_0"].process == "fresh"
    assert found["q4_0/q4_0"].again == "its verdict was 'fail'"
    assert {found[pair].process for pair in PAIRS.split() if pair != "q4_0/q4_0"} == {"warm"}


def test_a_verdict_that_is_open_is_of_a_fresh_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With emulated healthy cells: whatever of them is measured in the kept process is the same."""
    monkeypatch.setattr(Compared, "emulation", EMULATED)
    apart, found = cells(folder, "fresh"), cells(folder, "warm")
    assert found["f16/f16"].process == "warm"
    assert found["f16/f16"].again == ""
    for pair in PAIRS.split():
        assert figures(found[pair]) == figures(apart[pair])
        if pair != "f16/f16":
            assert found[pair].verdict == "inconclusive"
            assert found[pair].process == "fresh"
            assert found[pair].again == "its verdict was 'inconclusive'"


def test_a_run_starts_one_process_and_loads_one_set_of_weights(folder: Path) -> None:
    said = folder / "loads"
    hook = f"""
from pytest_kvquant.engine.child.context import LoadedModel
_load = LoadedModel.__init__

def loaded(self, *arguments, **fields):
    with open({str(said)!r}, "a") as file:
        file.write("loaded\\n")
    _load(self, *arguments, **fields)

LoadedModel.__init__ = loaded
"""
    for isolation in ways():
        said.write_text("")
        whole(folder, isolation, hook=hook)
        assert said.read_text().splitlines() == ["loaded"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux copies workers")
def test_a_worker_with_threads_is_not_copied(folder: Path, fresh: dict[str, Cell]) -> None:
    hook = """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""
    session = start(folder, pairs=("q8_0/q8_0",), isolation="fork", hook=hook, **SHORT)
    cell = session.measure(Pair("q8_0", "q8_0"))
    assert cell.process == "fresh"
    assert figures(cell)[1:] == figures(fresh["q8_0/q8_0"])[1:]
    notes = session._observer.notes  # type: ignore[attr-defined]
    assert [note for note in notes if "1 threads" in note]


@pytest.mark.parametrize("isolation", ["fresh", *ways()])
def test_the_seconds_add_up_to_the_wall(isolation: str, folder: Path) -> None:
    result = whole(folder, isolation)
    assert result.timing is not None
    for table in (result.timing.parts, result.timing.scopes):
        assert sum(table.values()) == pytest.approx(result.timing.wall)
    for cell in result.cells:
        assert cell.timing is not None
        assert sum(cell.timing.parts.values()) == pytest.approx(cell.timing.wall)
        assert cell.timing.parts["decode"] > 0
        assert cell.timing.parts.get("other", 0.0) < 0.5 * cell.timing.wall
    assert sum(cell.timing.wall for cell in result.cells if cell.timing) < result.timing.wall


def test_usual_ways(folder: Path) -> None:
    """Copies where only the CPU computes and the system is Linux; under proof elsewhere."""
    session = start(folder, **SHORT)
    usual = hiring.usual_isolation(session.library)
    alone = set(session.library.backends) == {"CPU"}
    assert usual == ("fork" if sys.platform == "linux" and alone else "warm")
    assert session.ready.workers.isolation == usual
    session.close()
