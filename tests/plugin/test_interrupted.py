"""A run that is stopped on the way: what is finished is kept, what is not never looks whole."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from support.interrupted import Run, as_under_nohup, gone, read, running, timeless
from support.outer import SMALL, pytest_in

from pytest_kvquant.cli.main import main

NINE = "--kv-types=f16,q8_0,q4_0"
FOUR = "--kv-types=f16,q8_0"

SLOW_CELL = """
import os, pathlib, time
from pytest_kvquant.engine.child.context import Context
inner = Context.__init__
def opened(self, model, *, type_k, type_v, **shape):
    inner(self, model, type_k=type_k, type_v=type_v, **shape)
    if (type_k, type_v) == ("q8_0", "q8_0"):
        pathlib.Path(os.environ["KVQUANT_WORKER_HOOK"]).with_name("slow").touch()
        time.sleep(3600)
Context.__init__ = opened
"""


def hooked(folder: Path, hook: str = SLOW_CELL) -> str:
    """The option that makes every worker run this Python first."""
    (folder / "hook.py").write_text(hook)
    (folder / "hooked.toml").write_text(
        f"[environment]\nKVQUANT_WORKER_HOOK = '{folder / 'hook.py'}'\n"
    )
    return f"--kv-config={folder / 'hooked.toml'}"


@pytest.mark.parametrize(
    ("types", "pairs", "killed_after"),
    [
        (FOUR, 4, 2),
        pytest.param("--kv-types=f16,q8_0,q5_1,q4_0", 16, 7, marks=pytest.mark.slow),
    ],
)
def test_kill_9_loses_no_finished_cell(
    tmp_path: Path, types: str, pairs: int, killed_after: int
) -> None:
    """The same command again measures the others only, and its result is that of a whole run."""
    command = [types, "--kv-decode=8", "--kv-json=kv.json"]
    with running(tmp_path, *command) as run:
        run.wait_for_parts(killed_after)
        workers = run.workers()
        run.stop(signal.SIGKILL)
        kept = run.parts()
        assert gone(workers)
    assert kept >= killed_after
    assert not (tmp_path / "kv.json").exists()
    resumed = pytest_in(tmp_path, "--kv-matrix", *SMALL, "--kv-store=store", *command)
    assert resumed.code == 0, resumed.text
    assert f"finished the quality of {kept} pairs" in resumed.text
    result = read(tmp_path / "kv.json")
    first, second = result["sittings"]
    assert first["started"] < second["started"]
    assert len(first["cells"]) == kept
    assert len(second["cells"]) == pairs - kept <= pairs - killed_after
    whole = tmp_path / "whole"
    whole.mkdir()
    apart = pytest_in(whole, "--kv-matrix", *SMALL, "--kv-store=store", *command)
    assert apart.code == 0, apart.text
    assert _but_for_paths(result, tmp_path) == _but_for_paths(read(whole / "kv.json"), whole)
    assert not list((tmp_path / "store").glob("**/*.part"))


def _but_for_paths(result: dict[str, object], folder: Path) -> object:
    def told(value: object) -> object:
        if isinstance(value, dict):
            return {key: told(one) for key, one in value.items()}
        if isinstance(value, list):
            return [told(one) for one in value]
        return value.replace(str(folder), "") if isinstance(value, str) else value

    return told(timeless(result))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1), (signal.SIGINT, 2)],
)
def test_a_signal_writes_what_is_there_and_never_looks_green(
    tmp_path: Path, number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(
        tmp_path, FOUR, "--kv-json=kv.json", "--kv-summary=kv.md", hooked(tmp_path)
    ) as run:
        run.wait_for_parts(3)
        run.wait_until((tmp_path / "slow").exists)
        workers = run.workers()
        ended = run.stop(number)
        assert gone(workers)
    assert ended.code == code, ended.text
    result = read(tmp_path / "kv.json")
    assert not result["complete"]
    assert result["interruption"]
    assert result["unfinished"]
    assert len(result["cells"]) == 3
    assert "Incomplete: 3 of 4 pairs measured" in (tmp_path / "kv.md").read_text()
    assert main(["merge", str(tmp_path / "kv.json")]) == 2
    assert "kv.json is incomplete" in capsys.readouterr().err


def test_under_nohup_a_closed_terminal_ends_nothing(tmp_path: Path) -> None:
    """Signals that were ignored when the run began stay so; SIGTERM still ends it."""
    with running(
        tmp_path, FOUR, "--kv-json=kv.json", hooked(tmp_path), before=as_under_nohup
    ) as run:
        run.wait_for("3/4 ")
        run.process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert run.process.poll() is None, run.text
        ended = run.stop(signal.SIGTERM)
    assert ended.code == 128 + 15, ended.text


def test_a_hung_worker_does_not_outlive_a_killed_run(tmp_path: Path) -> None:
    """In a kernel that never returns nothing is heard: the worker is ended from beside it."""
    hang = SLOW_CELL.replace("time.sleep(3600)", "import ctypes; ctypes.CDLL(None).pause()")
    with running(tmp_path, FOUR, hooked(tmp_path, hang)) as run:
        run.wait_for_parts(3)
        run.wait_for("3/4 ")
        time.sleep(2)
        workers = run.workers()
        run.process.kill()
        run.process.wait()
        assert workers
        assert gone(workers, within=10)


def test_exitfirst_is_an_interruption(tmp_path: Path) -> None:
    (tmp_path / "kvquant.toml").write_text("[budgets.'q8_0/*']\nkl_mean = 1e-9\nkl_tail = 0\n")
    run = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, "--kv-store=store", FOUR, "-x", "--kv-json=kv.json"
    )
    assert run.code == 1, run.text
    result = read(tmp_path / "kv.json")
    assert not result["complete"]
    assert "stopping after 1 failures" in result["interruption"]


def test_nothing_is_accepted_of_a_pair_that_was_not_finished(tmp_path: Path) -> None:
    """``-x`` ends the run in the third pair: baselines are those of the two before it."""
    (tmp_path / "kvquant.toml").write_text("[budgets.'q8_0/f16']\nkl_mean = 1e-9\nkl_tail = 0\n")
    run = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, "--kv-store=store", FOUR, "-x", "--snapshot-update",
        "--kv-json=kv.json",
    )  # fmt: skip
    assert run.code == 1, run.text
    assert not read(tmp_path / "kv.json")["complete"]
    accepted = {path.name for path in (tmp_path / "baselines").rglob("*.json")}
    assert accepted == {"f16-f16.json", "f16-q8_0.json"}


def test_selected_is_not_interrupted(tmp_path: Path) -> None:
    run = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, "--kv-store=store", FOUR, "--kv-json=kv.json",
        "-k", "test_measured and q8_0/f16",
    )  # fmt: skip
    assert run.code == 0, run.text
    result = read(tmp_path / "kv.json")
    assert result["complete"]
    assert result["selection"]["pairs"] == ["q8_0/f16"]
    assert result["selection"]["of"] == 4
    assert result["selection"]["tests"] == ["test_measured"]
    assert "test_kl_divergence" in result["selection"]["left_out"]


def test_another_budget_or_fresh_takes_nothing_over(tmp_path: Path) -> None:
    with running(tmp_path, FOUR, "--kv-json=kv.json") as run:
        run.wait_for_parts(2)
        run.stop(signal.SIGKILL)
    command = ["--kv-matrix", *SMALL, "--kv-store=store", FOUR, "--kv-json=kv.json"]
    (tmp_path / "kvquant.toml").write_text("[budgets.'q8_0/*']\nkl_mean = 0.5\n")
    other = pytest_in(tmp_path, *command)
    assert "interrupted run" not in other.text
    assert len(read(tmp_path / "kv.json")["sittings"]) == 1
    (tmp_path / "kvquant.toml").unlink()
    fresh = pytest_in(tmp_path, *command, "--kv-fresh")
    assert "measured again: --kv-fresh" in fresh.text
    assert len(read(tmp_path / "kv.json")["sittings"]) == 1
    assert not list((tmp_path / "store").glob("**/cell-*.part"))


def test_collect_only_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "kv.json").write_text("mine")
    run = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, "--kv-store=store", FOUR, "--kv-json=kv.json",
        "--collect-only", "-q",
    )  # fmt: skip
    assert run.code == 0, run.text
    assert (tmp_path / "kv.json").read_text() == "mine"


def test_nothing_measured_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "kv.json").write_text("mine")
    run = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, "--kv-store=store", FOUR, "--kv-json=kv.json",
        "-k", "test_kl_divergense",
    )  # fmt: skip
    assert run.code == 5, run.text
    said = "-k 'test_kl_divergense' selects no test; did you mean 'test_kl_divergence'?"
    assert said in " ".join(run.text.split())
    assert (tmp_path / "kv.json").read_text() == "mine"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_dead_process_of_xdist_does_not_hang_the_others(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path, NINE, "-n", "2", "--kv-devices=CPU:0,CPU:1", "--kv-json=kv.json") as run:
        run.wait_for_parts(2)
        process = _xdist_process(run)
        os.kill(process.pid, number)
        ended = run.end()
    assert ended.code not in (0, None), ended.text
    result = read(tmp_path / "kv.json")
    assert not result["complete"]
    assert result["cells"]


def _xdist_process(run: Run) -> psutil.Process:
    """One that measures."""
    direct = psutil.Process(run.process.pid).children()
    return next(process for process in direct if "exec(eval(" in " ".join(process.cmdline()))


def test_a_terminated_run_of_xdist_keeps_what_its_processes_have(tmp_path: Path) -> None:
    with running(tmp_path, NINE, "-n", "2", "--kv-devices=CPU:0,CPU:1", "--kv-json=kv.json") as run:
        run.wait_for_parts(4)
        processes = run.workers()
        ended = run.stop(signal.SIGTERM)
        assert gone(processes)
    assert ended.code == 128 + 15, ended.text
    result = read(tmp_path / "kv.json")
    assert not result["complete"]
    assert len(result["cells"]) >= 3
