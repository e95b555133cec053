"""Members of the zoo in a process that is kept: what it says other than pass, a fresh one says."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.workers import Workers
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.kernels import CornerRecord, Examination, NodeFailure
from pytest_kvquant.session.zoo import Enclosure, ZooRun

PAIR = Pair("q8_0", "turbo3")


def examined(*, wrong: bool = False, v_type: str = "turbo3") -> Examination:
    corners = tuple(
        CornerRecord(
            operation=operation, k_type="q8_0", v_type=v_type, backend="CUDA0", nodes=9,
            failed=int(wrong and operation == "attention"), ratio=0.5, error=0, worst=0,
        )
        for operation in ("attention", "write", "rope")
    )  # fmt: skip
    failure = NodeFailure(
        operation="attention", layer=0, node="n", tokens=3, text="head 1 is off", ratio=2
    )
    return Examination(level="minimal", corners=corners, failures=(failure,) if wrong else ())


class OneAfterAnother:
    """An examiner that finds something else each time."""

    def __init__(self, *found: Examination) -> None:
        self._left, self._known, self.forgotten = list(found), {}, 0

    def examine(self, pair: Pair) -> Examination:
        if pair not in self._known:
            self._known[pair] = self._left.pop(0) if pair == PAIR else examined(v_type="f16")
        return self._known[pair]

    def forget(self, pair: Pair) -> None:
        self.forgotten += 1
        del self._known[pair]


def zoo_with(
    examiner: OneAfterAnother, monkeypatch: pytest.MonkeyPatch, objection: str = ""
) -> ZooRun:
    engine = Engine(environment=scrub({}, {}), timeout=9.0)
    workers = Workers(engine, "m.gguf", 99, "warm")
    workers.check = mock.Mock()
    monkeypatch.setattr(workers, "objection", lambda: objection)
    zoo = ZooRun(
        Settings(zoo="llama-128"), engine, [PAIR], folder=Path(), expect={}, threads=1,
        library=mock.Mock(device="CUDA0", backends=("CUDA", "CPU")),
    )  # fmt: skip
    monkeypatch.setattr(zoo, "_enclose", lambda _: Enclosure(examiner, workers))
    return zoo


def test_a_pass_is_given_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    examiner = OneAfterAnother(examined())
    zoo = zoo_with(examiner, monkeypatch)
    assert zoo.measure(zoo.plan[0]).verdict == "pass"
    assert examiner.forgotten == 0


@pytest.mark.parametrize("first", [examined(wrong=True), examined(v_type="turbo2")])
def test_what_a_fresh_process_does_not_say_is_not_given(
    first: Examination, monkeypatch: pytest.MonkeyPatch
) -> None:
    examiner = OneAfterAnother(first, examined())
    zoo = zoo_with(examiner, monkeypatch)
    found = zoo.measure(zoo.plan[0])
    assert (found.verdict, examiner.forgotten) == ("pass", 1)
    assert found.kernels == examined()


def test_types_that_a_fresh_process_has_too_are_no_doubt_on_the_next_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fork holds K in q8_0 where turbo4 was asked for and many queries share a head."""
    other = examined(v_type="q8_0")
    examiner = OneAfterAnother(other, other, other)
    zoo = zoo_with(examiner, monkeypatch)
    (place,) = (one for one in zoo.plan if one.pair == PAIR)
    zoo.measure(place)
    assert examiner.forgotten == 1
    del examiner._known[PAIR]
    zoo.measure(place._replace(member="llama-112"))
    assert examiner.forgotten == 1


def test_a_fault_is_given_once_a_fresh_process_has_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = zoo_with(OneAfterAnother(examined(wrong=True), examined(wrong=True)), monkeypatch)
    assert zoo.measure(zoo.plan[0]).verdict == "fail"


def test_a_pass_of_a_process_that_is_not_what_it_was_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examiner = OneAfterAnother(examined(), examined(wrong=True))
    zoo = zoo_with(examiner, monkeypatch, "f16 no longer gives the same logits in its process")
    assert zoo.measure(zoo.plan[0]).verdict == "fail"
