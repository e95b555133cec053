"""Windows is told in one line, wherever something would be measured."""

from __future__ import annotations

import sys

import pytest

from pytest_kvquant import plugin
from pytest_kvquant.cli.main import main, parser
from tools.pages import command_parsers


def says_that_it_measures(*words: str) -> bool:
    return bool(getattr(parser().parse_args(words), "measures", False))


def test_a_command_that_takes_a_library_says_that_it_measures() -> None:
    takes = {
        name: bool(one.get_default("measures"))
        for name, one in command_parsers().items()
        if any("--kv-lib" in action.option_strings for action in one._actions)
    }
    assert takes
    assert [name for name, measures in takes.items() if not measures] == []


@pytest.mark.parametrize("command", ["doctor", "init", "selfcheck"])
def test_commands_that_measure_say_so(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says_that_it_measures(command)  # and loads what looks at the platform when loaded
    monkeypatch.setattr(sys, "platform", "win32")
    assert main([command]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "WSL" in told


def test_commands_that_read_results_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not says_that_it_measures("explain")
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
