"""Workers that die, each in its own way and in mid-cell: one cell is lost, all others are as ever.

Every fault is planted through the real process boundary: a file that the worker runs first.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.run import cells_of, measure, start

from pytest_kvquant.errors import CorpusError, LibraryError, ModelError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell

SHORT = {"ctx": 64, "chunks": 4, "batch": 64, "ubatch": 64, "decode": 0, "trajectory": 0,
         "probe": "off", "coverage": "off"}  # fmt: skip
HEALTHY = ("q8_0/q8_0", "q4_0/q4_0", "q8_0/f16")

FAULTS = {
    "f16/q8_0": "ctypes.string_at(0)",
    "f16/q4_0": "os.abort()",
    "q4_0/f16": "os._exit(3)",
    "q5_1/f16": "os.kill(os.getpid(), signal.SIGKILL)",
    "q5_1/q5_1": "time.sleep(1e6)",
    "q8_0/q5_1": "raise RuntimeError('a bug in Python')",
    "q5_1/q4_0": (
        "worker.library.function('ggml_abort', None, ctypes.c_char_p, ctypes.c_int,"
        " ctypes.c_char_p)(b'fattn.cpp', 42, b'GGML_ASSERT(%s) failed', b'nb1 == 2')"
    ),
    "q4_0/q5_1": "worker.channel.close(); time.sleep(1e6)",
    "q8_0/q4_0": "print('ggml: failed to allocate 9 GiB', file=sys.stderr); os._exit(1)",
    "q4_0/q8_0": "raise DecodeFailed('llama_decode: the compute graph failed (code -3)')",
}
"""How the worker of each cell ends."""

HOOK = """
import ctypes, os, signal, sys, time
from pytest_kvquant.engine.child.context import Context, DecodeFailed

faults = {faults!r}
_open, _decode = Context.__init__, Context.decode

def opened(self, model, *, type_k, type_v, **shape):
    self.fault, self.left = faults.get(type_k + "/" + type_v), 3
    _open(self, model, type_k=type_k, type_v=type_v, **shape)

def decoded(self, *batch):
    self.left -= 1
    if self.fault and self.left == 0:
        print("the last words of the library", file=sys.stderr, flush=True)
        exec(self.fault)
    return _decode(self, *batch)

Context.__init__, Context.decode = opened, decoded
"""


def leftovers() -> tuple[set[int], set[str], int]:
    """Child processes, named shared memory, open files of this process."""
    gc.collect()
    me = psutil.Process()
    shm = Path("/dev/shm")
    return (
        {child.pid for child in me.children(recursive=True)},
        {path.name for path in shm.iterdir()} if shm.is_dir() else set(),
        me.num_fds(),
    )


def assert_no_more_than(before: tuple[set[int], set[str], int]) -> None:
    """Files that earlier tests left open may have been closed meanwhile; nothing is added."""
    children, shared, files = leftovers()
    assert (children, shared) == before[:2]
    assert files <= before[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("survival")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Cell]:
    return cells_of(measure(folder, " ".join(HEALTHY), **SHORT))


@pytest.fixture(
    scope="module",
    params=[
        "fork",  # as runs on Linux make them, "warm" as others do
        pytest.param("warm", marks=pytest.mark.slow if sys.platform == "linux" else ()),
        pytest.param("fresh", marks=pytest.mark.slow),
    ],
)
def disturbed(
    folder: Path, undisturbed: dict[str, Cell], request: pytest.FixtureRequest
) -> Iterator[dict[str, Cell]]:
    """Healthy cells before, between and after those whose workers die, however they are made."""
    if request.param == "fork" and sys.platform != "linux":
        pytest.skip("only Linux copies workers")
    options = {**SHORT, "isolation": request.param, "timeout": 4.0}
    before = leftovers()
    faulty = list(FAULTS)
    pairs = [HEALTHY[0], *faulty[:5], HEALTHY[1], *faulty[5:], HEALTHY[2]]
    hook = HOOK.format(faults=FAULTS)
    yield cells_of(measure(folder, " ".join(pairs), hook=hook, **options))
    assert_no_more_than(before)


@pytest.mark.parametrize("pair", HEALTHY)
def test_the_other_cells_are_those_of_an_undisturbed_run(
    pair: str, disturbed: dict[str, Cell], undisturbed: dict[str, Cell]
) -> None:
    one, other = disturbed[pair], undisturbed[pair]
    assert one.quality == other.quality is not None
    assert one.digests == other.digests != ()
    assert one.per_chunk == other.per_chunk
    assert one.verdict == other.verdict


@pytest.mark.parametrize(
    ("pair", "verdict", "said"),
    [
        ("f16/q8_0", "crashed", "The worker was killed by SIGSEGV (invalid memory access)."),
        ("f16/q4_0", "crashed", "The worker was killed by SIGABRT (an assertion or abort)."),
        ("q4_0/f16", "crashed", "The worker exited with code 3."),
        ("q5_1/f16", "crashed", "The worker was killed by SIGKILL (from outside; often the "),
        ("q5_1/q5_1", "timeout", "The worker was silent for 4 s and was killed"),
        ("q8_0/q5_1", "crashed", "The worker failed: RuntimeError: a bug in Python."),
        ("q5_1/q4_0", "crashed", "The worker was killed by SIGABRT (an assertion or abort)."),
        ("q4_0/q5_1", "crashed", "The worker hung up but did not end."),
        ("q8_0/q4_0", "out-of-memory", "exited with code 1. It was out of memory."),
        ("q4_0/q8_0", "crashed", "llama_decode: the compute graph failed (code -3)"),
    ],
)
def test_each_death_is_its_cell_s_verdict(
    pair: str, verdict: str, said: str, disturbed: dict[str, Cell]
) -> None:
    cell = disturbed[pair]
    assert cell.verdict == verdict
    assert said in (cell.message or "")
    assert cell.quality is None
    assert cell.gates == ()


@pytest.mark.parametrize("pair", [pair for pair in FAULTS if "raise" not in FAULTS[pair]])
def test_the_library_s_last_words_are_kept(pair: str, disturbed: dict[str, Cell]) -> None:
    assert "the last words of the library" in (disturbed[pair].log or "")


def test_an_assertion_of_ggml_is_quoted(disturbed: dict[str, Cell]) -> None:
    assert "fattn.cpp:42: GGML_ASSERT(nb1 == 2) failed" in (disturbed["q5_1/q4_0"].log or "")


def test_a_reference_that_dies_costs_cells_and_says_so(folder: Path) -> None:
    before = leftovers()
    hook = HOOK.format(faults={"f16/f16": "os.abort()"})
    cells = cells_of(measure(folder, "q8_0/q8_0", hook=hook, **SHORT))
    for cell in cells.values():
        assert cell.verdict == "crashed"
        assert "f16" in (cell.message or "")
        assert "killed by SIGABRT" in (cell.message or "")
    assert_no_more_than(before)


@pytest.mark.parametrize(
    ("stage", "kind"), [("library", LibraryError), ("model", ModelError), ("tokenize", CorpusError)]
)
def test_a_death_before_the_first_cell_refuses_the_run(
    stage: str, kind: type[Exception], folder: Path
) -> None:
    hook = f"""
import os
def dies(message):
    os.abort()
worker.on_{stage} = dies
"""
    before = leftovers()
    with pytest.raises(kind, match="killed by SIGABRT"):
        start(folder, hook=hook, **SHORT)
    assert_no_more_than(before)


def test_files_where_the_run_is_started_do_not_take_the_place_of_modules(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clone of llama-cpp-python has a folder llama_cpp, anybody a file named json.py."""
    for name in ("json.py", "numpy.py", "llama_cpp.py"):
        (tmp_path / name).write_text("raise ImportError('the wrong module')")
    monkeypatch.chdir(tmp_path)
    assert start(folder, **SHORT).library.types


def test_an_interruption_leaves_nothing_behind(folder: Path) -> None:
    before = leftovers()
    session = start(folder, pairs=("q8_0/q8_0",), **SHORT)

    running: list[set[int]] = []

    def interrupt(what: str, done: int, _of: int) -> None:
        if "at most" in what and done:  # a chunk of the cell: its worker decodes the next one
            running.append(leftovers()[0] - before[0])
            raise KeyboardInterrupt

    session._observer.step = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        session.measure(Pair("q8_0", "q8_0"))
    assert running[0]
    del session
    assert_no_more_than(before)


def test_a_worker_does_not_outlive_its_run(folder: Path) -> None:
    """The parent is gone without a word: SIGKILL."""
    import subprocess
    import sys

    script = """
import os, signal, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from support.run import start
from pytest_kvquant.engine.parent.worker import Worker
session = start(Path(sys.argv[3]), ctx=64, chunks=1)
worker = Worker(session.ready.engine)
worker.library(session.ready.engine.directory)
print(worker.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", script, str(root), str(root / "tests"), str(folder)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == -9, run.stderr
    pid = int(run.stdout)
    gone, alive = psutil.wait_procs(
        [psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=20
    )
    for process in alive:
        os.kill(process.pid, 9)
    assert not alive
    assert len(gone) <= 1
