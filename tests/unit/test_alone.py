"""One run at a time on a machine, awake, after it has cooled down."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pytest_kvquant.cli import alone as command
from pytest_kvquant.cli.main import main
from pytest_kvquant.machine import alone
from pytest_kvquant.machine.locks import held


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache" / "alone.lock"
    monkeypatch.setattr(command, "lock_file", lambda: path)
    return path


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_that_of_the_command(code: int) -> None:
    assert main(["alone", "--", sys.executable, "-c", f"raise SystemExit({code})"]) == code


def test_a_second_run_waits_and_says_for_whom(
    own_lock: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own_lock.parent.mkdir()
    with held(own_lock, lambda _line: None):
        assert main(["alone", "--wait", "0.001", "--", "true"]) == 2
    said = capfd.readouterr().err
    assert f"waiting for process {os.getpid()}, which holds {own_lock}" in said
    assert "another run still holds" in said
    assert main(["alone", "--", "true"]) == 0


def test_no_command_and_one_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["alone"]) == 2
    assert main(["alone", "--", "/nowhere/pytest"]) == 2
    assert "cannot be started" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("levels", "patience", "end", "looks"),
    [
        (["nominal"] * 9, 60, "nominal", alone.CALM),
        (["heavy", "nominal", "moderate", *["nominal"] * 9], 600, "nominal", 3 + alone.CALM),
        (["heavy"] * 99, 20, "heavy", 5),
        ([None], 60, None, 1),
    ],
)
def test_cooling_down(
    levels: list[str | None], patience: float, end: str | None, looks: int
) -> None:
    told = iter(levels)
    seen: list[str | None] = []

    def level() -> str | None:
        seen.append(next(told))
        return seen[-1]

    assert alone.cool_down(patience, level=level, sleep=lambda _seconds: None) == end
    assert len(seen) == looks
