"""Bytes per token of real caches equal geometry to the byte; what takes more fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import run
from support.tinygguf import Tiny, write

from pytest_kvquant.config.overrides import Expect, FloorOverride
from pytest_kvquant.matrix import Pair
from pytest_kvquant.outcomes.memory import CellMemory
from pytest_kvquant.report import view
from pytest_kvquant.report.markdown import summary
from pytest_kvquant.session.merge import merge
from pytest_kvquant.session.run import Session

ROW = {"f16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q4_0": 18 / 32}
"""Bytes per element."""
SHAPES = {
    "head dimension 64": Tiny(n_layer=2, n_head=4, n_head_kv=2, head_dim=64),
    "head dimension 128": Tiny(n_layer=2, n_head=4, n_head_kv=2, head_dim=128),
    "8:1 grouping": Tiny(n_layer=2, n_head=8, n_head_kv=1, head_dim=128),
}


BRIEF: dict[str, Any] = {"ctx": 64, "chunks": 2, "decode": 0, "trajectory": 0}


class Node:
    """As much of a test item as a footprint is reported to."""

    def __init__(self) -> None:
        self.user_properties: list[tuple[str, object]] = []


def footprint(session: Session, pair: Pair) -> dict[str, object]:
    node = Node()
    CellMemory(session, pair, node).check_footprint()  # type: ignore[arg-type]
    return dict(node.user_properties)


@pytest.mark.parametrize("shape", SHAPES)
def test_footprint_equals_geometry_to_the_byte(tmp_path: Path, shape: str) -> None:
    model = SHAPES[shape]
    write(tmp_path / "model.gguf", model)
    pairs = ("q8_0/q8_0", "q5_1/q4_0")
    session = run.start(tmp_path, model=tmp_path / "model.gguf", pairs=pairs, **BRIEF)
    for text in ("f16/f16", *pairs):
        pair = Pair.parse(text)
        per_element = ROW[pair.k] + ROW[pair.v]
        elements = model.n_layer * model.n_head_kv * model.head_dim
        cell = session.measure(pair)
        assert cell.placement is not None
        cells = sum(cache.cells for cache in cell.placement.caches)
        assert footprint(session, pair) == {
            "kv_bytes_per_token": elements * per_element,
            "kv_compression": pytest.approx(4 / per_element),
            "kv_allocated_mib": pytest.approx(cells * elements * per_element / 2**20, abs=0.005),
        }
        check = session.footprint(pair)
        assert check is not None
        assert check.text.endswith(f"MiB for {cells:,} cells, as their rows take")


def test_a_configured_compression_is_a_floor(tmp_path: Path) -> None:
    floors = {"q8_0/*": FloorOverride(compression=3.8)}
    session = run.start(tmp_path, pairs=("q8_0/q8_0",), floors=floors, **BRIEF)
    with pytest.raises(
        pytest.fail.Exception, match=r"1\.882 times less than f16; the floor is 3\.8"
    ):
        footprint(session, Pair("q8_0", "q8_0"))
    footprint(session, Pair("f16", "f16"))


def test_a_footprint_that_fails_is_in_the_result_and_its_views(tmp_path: Path) -> None:
    floors = {"q8_0/*": FloorOverride(compression=3.8)}
    session = run.start(tmp_path, pairs=("q8_0/q8_0",), floors=floors, **BRIEF)
    for pair in session.pairs:
        session.measure(pair)
    result = session.result()
    cells = run.cells_of(result)
    check = next(check for check in cells["q8_0/q8_0"].checks if check.name == "footprint")
    assert (check.verdict, check.limit) == ("fail", 3.8)
    assert check.figure == pytest.approx(32 / 17)
    assert cells["q8_0/q8_0"].verdict == "fail"
    assert cells["f16/f16"].verdict == "pass"
    assert view.run_tone(result) == "bad"
    assert "1 of 2 cells pass; 1 fail (q8_0/q8_0)" in view.headline(result)
    assert "1.882 times less than f16; the floor is 3.800 times" in summary(result)
    assert "it fails footprint" in session.verdicts.refusal(Pair("q8_0", "q8_0"))
    assert view.run_tone(merge([("a", result)])) == "bad"


SUBSTITUTED = "plant(change_types=lambda k, v: ('q8_0', v))"
ASKED = Pair("q4_0", "q8_0")
TIMED: dict[str, Any] = {"depths": (0,), "pp": 16, "tg": 4, "sample": 0.001, "rounds": 6,
                         "threads": 1}  # fmt: skip


@pytest.mark.parametrize("pattern", ["q4_0/q8_0", "*/q8_0"])
def test_a_declared_substitution_is_measured_as_what_it_holds(tmp_path: Path, pattern: str) -> None:
    expect = {pattern: Expect(substituted="q8_0/q8_0")}
    pairs = (str(ASKED), "q8_0/q8_0")
    session = run.start(tmp_path, pairs=pairs, hook=SUBSTITUTED, expect=expect, **BRIEF, **TIMED)
    assert footprint(session, ASKED) == footprint(session, Pair("q8_0", "q8_0"))
    assert session.measure(ASKED).checks[0].verdict == "pass"
    assert session.measure(Pair("q8_0", "q8_0")).checks[0].verdict == "pass"
    assert session.speed.measure(ASKED).message is None


def test_a_substitution_that_nobody_declared_has_no_footprint(tmp_path: Path) -> None:
    session = run.start(tmp_path, pairs=(str(ASKED),), hook=SUBSTITUTED, **BRIEF)
    with pytest.raises(pytest.fail.Exception, match=r"substituted\. K is q8_0 instead of q4_0"):
        footprint(session, ASKED)
    with pytest.raises(pytest.skip.Exception, match="substituted"):
        footprint(session, ASKED)


MIXED_LAYERS = """
from pytest_kvquant.engine.child import stream

plant()
_read = census.read

def mixed(state, types, **options):
    found = _read(state, types, **options)
    (cache,) = found.caches
    if cache.layers[0].k_type != "q4_0":
        return found
    first = cache.layers[0]._replace(v_type="f16", v_row=512)
    cache = cache._replace(layers=(first, *cache.layers[1:]))
    return found._replace(caches=(cache,), bytes_per_token=cache.bytes_per_token)

census.read = stream.read = mixed
"""


def test_layers_that_differ_as_declared_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_kvquant.checks.footprint.BESIDE", 1.0)  # the census is made up

    def start(name: str, **declared: Any) -> Session:
        return run.start(
            tmp_path / name, pairs=(str(ASKED),), hook=MIXED_LAYERS,
            expect={str(ASKED): Expect(**declared)}, **BRIEF, **TIMED,
        )  # fmt: skip

    for name in ("declared", "other"):
        (tmp_path / name).mkdir()
    session = start("declared", substituted="mixed")
    census = session.measure(ASKED).census
    assert census is not None
    assert footprint(session, ASKED)["kv_bytes_per_token"] == census.expected_bytes_per_token
    assert session.speed.measure(ASKED).message is None
    other = start("other", substituted="q8_0/q8_0")
    assert other.measure(ASKED).checks[0].verdict == "fail"
    timed = other.speed.measure(ASKED)
    assert timed.verdict == "substituted"
    assert "not q8_0/q8_0 as [expect] says" in (timed.message or "")


def test_a_state_that_cannot_be_read_fails_no_footprint(tmp_path: Path) -> None:
    hook = "census.read = lambda *_, **__: census.unreadable('of a later version')"
    session = run.start(tmp_path, pairs=("q4_0/q4_0",), hook=hook, **BRIEF)
    for pair in session.pairs:
        assert session.measure(pair).checks[0].verdict == "inconclusive"
        with pytest.raises(pytest.skip.Exception, match="not readable: of a later version"):
            footprint(session, pair)
    assert {cell.verdict for cell in session.result().cells} <= {"pass", "inconclusive"}
