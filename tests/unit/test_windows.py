"""Windows is told in one line, wherever something would be measured."""

from __future__ import annotations

import sys

import pytest

from pytest_kvquant import plugin
from pytest_kvquant.cli.main import MEASURING, _parser, main


@pytest.mark.parametrize("command", ["doctor", "init", "selfcheck"])
def test_commands_that_measure_say_so(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command in MEASURING
    _parser()  # loads what looks at the platform when it is loaded
    monkeypatch.setattr(sys, "platform", "win32")
    assert main([command]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "WSL" in told


def test_commands_that_read_results_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "kl_mean"]) == 0
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["explain", "kl_mean"]) == 0
    assert "WSL" not in capsys.readouterr().err


def test_a_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked:
        def addinivalue_line(self, *words: str) -> None:
            pass

        def getoption(self, name: str) -> bool:
            return name == "kv_matrix"

    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(pytest.UsageError, match="WSL"):
        plugin.pytest_configure(Asked())  # type: ignore[arg-type]
