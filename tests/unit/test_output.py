"""Files that are written leave those of the user alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.errors import RunRefused
from pytest_kvquant.machine import files
from pytest_kvquant.quality import evidence_file
from pytest_kvquant.report import output


def test_a_file_is_replaced_with_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    path.chmod(0o640)
    files.replace(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    files.replace(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_file_with_the_former_temporary_name_stays(tmp_path: Path) -> None:
    mine = tmp_path / f".r.json.{os.getpid()}"
    mine.write_text("mine")
    files.replace(tmp_path / "r.json", b"new")
    assert mine.read_text() == "mine"


def test_what_is_no_regular_file_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        files.replace(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").is_fifo()


def test_nothing_stays_of_a_write_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    for before in ({}, {"r.json": b"old"}):
        for name, data in before.items():
            (tmp_path / name).write_bytes(data)
        with pytest.raises(OSError, match="No space"):
            files.replace(tmp_path / "r.json", b"new")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model": "a.gguf", "json": "a.gguf"}, r"--kv-json .*that is the file of --kv-model\."),
        ({"corpus": "a.txt", "summary": "./a.txt"}, r"--kv-summary .*--kv-corpus\."),
        ({"speed_baseline": "a", "json": "a"}, r"--kv-json .*--kv-speed-baseline\."),
        ({"json": "a", "summary": "link"}, r"--kv-summary .*--kv-json\."),
    ],
)
def test_an_output_over_another_file_of_the_run_is_refused(
    files: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("a")
    paths: dict[str, Any] = {name: Path(file) for name, file in files.items()}
    with pytest.raises(RunRefused, match=said):
        output.check(Settings(**paths))


def test_evidence_is_not_written_over_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "q8_0--f16.npz"
    np.savez(path, mine=np.zeros(3))
    before = path.read_bytes()
    with pytest.raises(evidence_file.EvidenceError, match="is not written over"):
        evidence_file.require_ours(tmp_path)
    assert path.read_bytes() == before
