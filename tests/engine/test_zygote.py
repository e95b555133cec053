"""Workers of a device begin as copies of a process that has met none."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.forked import Forked
from pytest_kvquant.engine.parent.process import NoCopy, WorkerProcess
from pytest_kvquant.engine.parent.workers import Isolation, Workers
from pytest_kvquant.errors import CellCrashed
from pytest_kvquant.machine.environment import scrub

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux copies workers")


@contextmanager
def hired(isolation: Isolation) -> Iterator[Workers]:
    engine = Engine(python=sys.executable, environment=scrub(dict(os.environ), {}), timeout=60)
    workers = Workers(engine, str(EMBEDDED_MODEL), 0, isolation)
    try:
        yield workers
    finally:
        workers.end()


def children() -> set[int]:
    return {one.pid for one in psutil.Process().children(recursive=True)}


def test_a_copy_loads_library_and_model_itself_and_none_is_left() -> None:
    before = children()
    with hired("warm") as workers:
        for _ in range(2):
            with workers.fresh() as worker:
                assert isinstance(worker.process, Forked)
                assert len(worker.tokenize(b"a text")) > 0
        zygote = psutil.Process((children() - before).pop())
        assert not any("kvq-mini" in file.path for file in zygote.memory_maps())
    assert children() == before


def test_a_process_of_its_own_where_that_was_asked_for() -> None:
    with hired("fresh") as workers, workers.fresh() as worker:
        assert not isinstance(worker.process, Forked)


def test_a_zygote_that_died_is_replaced() -> None:
    before = children()
    with hired("warm") as workers:
        with workers.fresh():
            pass
        (zygote,) = children() - before
        os.kill(zygote, signal.SIGKILL)
        with workers.fresh() as worker:
            assert len(worker.tokenize(b"a text")) > 0
        assert zygote not in children()


def test_a_death_of_a_copy_is_told_as_that_of_a_process() -> None:
    with hired("warm") as workers:
        with workers.fresh() as worker:
            os.kill(worker.process.pid, signal.SIGSEGV)
            with pytest.raises(CellCrashed, match="SIGSEGV"):
                worker.tokenize(b"a text")
        with workers.fresh() as worker:
            assert len(worker.tokenize(b"a text")) > 0


def test_where_none_can_be_copied_each_is_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_self: WorkerProcess, _line: int, _log: int) -> int:
        raise NoCopy("the worker has 3 threads")

    monkeypatch.setattr(WorkerProcess, "fork", refuses)
    before = children()
    with hired("warm") as workers:
        for _ in range(2):
            with workers.fresh() as worker:
                assert not isinstance(worker.process, Forked)
                assert len(children() - before) == 1
