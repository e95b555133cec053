"""A disk that takes nothing more, at each write: what was there stays, no part of a file does.

No file may grow (``RLIMIT_FSIZE``): the system itself refuses the write, as a full disk does.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numba
import numpy as np
import pytest

import pytest_kvquant
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.errors import ModelError, RunRefused
from pytest_kvquant.inputs import control_vector, fingerprint
from pytest_kvquant.inputs.reference_store import ReferenceStore
from pytest_kvquant.machine import files
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.machine.locks import held
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.compiled import cached
from pytest_kvquant.report import export, output
from pytest_kvquant.results.file import read
from pytest_kvquant.session import pace
from pytest_kvquant.session.zoo import ZooRun

GOLDEN = Path(__file__).parents[1] / "golden" / "results" / "schema-1.json"


@contextmanager
def full() -> Iterator[None]:
    """No file grows in this block, those of pytest's capture included."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("write", [files.replace, files.write_durably])
def test_the_old_file_stays(write: object, tmp_path: Path) -> None:
    """JSON, page, summary, baselines and parts of the journal are written by these two."""
    (tmp_path / "r.json").write_text("old")
    before = everything(tmp_path)
    with full(), pytest.raises(OSError, match="too large"):
        write(tmp_path / "r.json", b"new")  # type: ignore[operator]
    assert everything(tmp_path) == before


DIRECT = {
    "machine/files.py": "the two functions themselves",
    "machine/locks.py": "the pid beside a lock: a number, or nothing",
    "report/output.py": "a CI system's summary is added to, as it wants it",
    "inputs/store_folder.py": "a new file, or into memory of its own",
    "inputs/fingerprint.py": "written aside, then put in its place",
    "inputs/reference_store.py": "written aside, then put in its place",
    "inputs/logits_file.py": "makes files for tests of the reader",
    "cli/selfcheck.py": "in a folder of its own that goes away",
    "testing/project.py": "files of a test's own project",
}
"""Who writes without :mod:`pytest_kvquant.machine.files`, and why that leaves nothing half done."""


def test_whole_files_are_written_in_one_place() -> None:
    root = Path(pytest_kvquant.__file__).parent
    writes = re.compile(r"\.write_(?:text|bytes)\(|open\([^)\n]*[\"'][wxa]b?[\"']")
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if writes.search(path.read_text(encoding="utf-8"))
    }
    assert found == set(DIRECT)


def test_a_table_is_whole_or_as_it_was(tmp_path: Path) -> None:
    result = read(GOLDEN)
    export.to_csv(result, tmp_path)
    (tmp_path / "run.csv").write_text("old")
    before = everything(tmp_path)
    with full(), pytest.raises(OSError, match="too large"):
        export.to_csv(result, tmp_path)
    assert everything(tmp_path) == before


def test_every_output_is_named(tmp_path: Path) -> None:
    result = read(GOLDEN)
    settings = Settings(json=tmp_path / "r.json", summary=tmp_path / "r.md")
    with full():
        complaints = output.write(settings, result, {})
    assert len(complaints) == 2
    for path, said in zip(("r.json", "r.md"), sorted(complaints), strict=True):
        assert f"{path} could not be written: File too large." in said
    assert not everything(tmp_path)


def test_the_pace_of_earlier_runs_stays(tmp_path: Path) -> None:
    pace.remember(tmp_path, "a", {"cell": 1.0})
    before = everything(tmp_path)
    with full():
        pace.remember(tmp_path, "b", {"cell": 2.0})
    assert everything(tmp_path) == before
    assert pace.remembered(tmp_path, "a") == {"cell": 1.0}


def test_a_hash_is_computed_again(tmp_path: Path) -> None:
    model, cache = tmp_path / "m.gguf", tmp_path / "cache"
    model.write_bytes(b"model")
    with full():
        found = fingerprint.file_hash(model, cache)
    assert found == fingerprint.file_hash(model, None)
    assert not everything(cache)


def test_a_reference_is_refused_and_no_part_of_it_stays(tmp_path: Path) -> None:
    reference = ReferenceStore(tmp_path, 1 << 30).open({"m": 1}, rows=1, vocabulary=1)
    before = everything(tmp_path)
    with full(), pytest.raises(RunRefused, match="free space there or choose another folder"):
        reference.keep_tokens(np.arange(9, dtype=np.int32))
    assert everything(tmp_path) == before


def test_a_lock_is_held_all_the_same(tmp_path: Path) -> None:
    with full(), held(tmp_path / "lock", print):
        pass
    assert not list(tmp_path.glob("*.pid"))


def test_a_model_of_the_zoo_is_refused_in_one_line(tmp_path: Path) -> None:
    engine = Engine(environment=scrub({}, {}), timeout=9.0)
    zoo = ZooRun(
        Settings(zoo="llama-128"), engine, [Pair("f16", "f16")], folder=tmp_path,
        library=mock.Mock(device="CPU"), expect={}, threads=1,
    )  # fmt: skip
    with full(), pytest.raises(ModelError, match=r"cannot be written to .*free space there"):
        zoo.measure(zoo.plan[0])
    assert not everything(tmp_path)


def test_a_control_vector_is_whole_or_not_there(tmp_path: Path) -> None:
    one = mock.Mock(data=np.ones(4, np.float32))
    one.name = "direction.1"
    with (
        mock.patch("gguf.GGUFReader", return_value=mock.Mock(tensors=[one])),
        full(),
        pytest.raises(ModelError, match="cannot be written"),
    ):
        control_vector.write_array(tmp_path / "v.gguf", tmp_path / "v.npy")
    assert not everything(tmp_path)


def test_a_loop_that_cannot_be_kept_is_compiled_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    @cached
    @numba.njit
    def twice(x: float) -> float:
        return 2 * x

    with full():
        assert twice(3.0) == 6.0
