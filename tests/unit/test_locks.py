"""Waiting for another run is said, with its process id; who died holds nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_kvquant.machine.locks as module
from pytest_kvquant.inputs.reference_store import ReferenceStore
from pytest_kvquant.machine.locks import held

HOLDER = """
import sys
from pathlib import Path
from pytest_kvquant.machine.locks import held
with held(Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_waits_is_told_the_holder_s_pid(holder: subprocess.Popen[str], lock: Path) -> None:
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        holder.kill()  # ``kill -9``: the system lets go of what it held

    assert inspect.signature(held).parameters["patience"].default == 2
    with held(lock, tell, patience=0.1):
        pass
    assert said == [f"waiting for process {holder.pid}, which holds {lock}"]


def test_a_free_lock_says_nothing(lock: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with held(lock, said.append):
            assert list(lock.parent.glob("*.pid"))
    assert not said
    assert not list(lock.parent.glob("*.pid"))


def test_it_is_said_after_two_seconds() -> None:
    assert module.PATIENCE == 2.0


def test_a_pid_that_is_gone_is_not_named(lock: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    said: list[str] = []
    with held(lock, said.append):
        lock.with_name("lock.pid").write_text(str(gone.pid))
        with pytest.raises(TimeoutError), held(lock, said.append, patience=0, most=0):
            pass
    assert said == [f"waiting for another process, which holds {lock}"]


def test_a_link_beside_the_lock_is_not_written_through(tmp_path: Path, lock: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    lock.with_name("lock.pid").symlink_to(mine)
    with held(lock, print):
        pass
    assert mine.read_text() == "mine"


def test_a_run_that_waits_for_a_store_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both of its locks: that of the folder, and that of one reference."""
    monkeypatch.setattr(module.held.__wrapped__, "__kwdefaults__", {"patience": 0.05, "most": -1})
    said: list[str] = []
    arrived = threading.Event()

    def tell(line: str) -> None:
        said.append(line)
        arrived.set()

    first = ReferenceStore(tmp_path, 1 << 20)
    second = ReferenceStore(tmp_path, 1 << 20, tell=tell)
    reference = first.open({"model": "m"}, rows=1, vocabulary=1)
    other = second.open({"model": "m"}, rows=1, vocabulary=1)
    for taken, wait in (
        (first._exclusively(), lambda: second.evict(0, tmp_path)),
        (reference.exclusively(), lambda: other.exclusively().__enter__()),
    ):
        arrived.clear()
        with taken:
            waiting = threading.Thread(target=wait)
            waiting.start()
            assert arrived.wait(60)
        waiting.join(60)
    assert len(said) == 2
    assert all("waiting for process" in line for line in said)
