"""Between pytest and a run: options to settings, refusals to usage errors, results to files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.config.complaints import nearest
from pytest_kvquant.config.options import OPTIONS
from pytest_kvquant.config.resolver import find_root
from pytest_kvquant.config.speed_tests import SPEED_TESTS
from pytest_kvquant.errors import ResultError, RunRefused
from pytest_kvquant.machine.apple.power import awake
from pytest_kvquant.machine.escape import one_line
from pytest_kvquant.machine.signals import deferred
from pytest_kvquant.report import output
from pytest_kvquant.report import terminal as terminal_view
from pytest_kvquant.report.article import article, format_of
from pytest_kvquant.report.progress import Progress
from pytest_kvquant.results.result import Result
from pytest_kvquant.session.command_line import taken_for_a_path, typed_options
from pytest_kvquant.session.distribution import Distribution, device_of, report_back
from pytest_kvquant.session.readiness import settle, settle_here
from pytest_kvquant.session.run import Session
from pytest_kvquant.session.stash import SUITE


def prepare(config: pytest.Config) -> Session:
    """Everything before the first cell.

    Raises:
        pytest.UsageError: what was asked for cannot work; pytest then exits with code 4.
    """
    typed = {option.field: config.getoption(option.dest, None) for option in OPTIONS}
    file = config.getoption("kv_config")
    chosen = config.getoption("rootdir", None)
    root = config.rootpath if chosen else find_root(config.invocation_params.dir)
    processes = config.getoption("numprocesses", None) or 0
    device = device_of(config.workerinput) if hasattr(config, "workerinput") else None
    try:
        settings = settle(
            typed,
            config=Path(file) if file else None,
            root=root,
            place=lambda settings: settle_here(settings, processes=processes, device=device),
        )
        collecting = bool(config.getoption("collectonly", False))
        session = Session(settings, dict(os.environ), Progress(config), vocabulary_only=collecting)
    except RunRefused as error:
        raise pytest.UsageError(one_line(str(error))) from None
    if len(settings.devices) > 1 and not processes:
        Progress(config).note(
            f"only {settings.devices[0]} is used; -n {len(settings.devices)} spreads the cells "
            "over all devices"
        )
    session.account.invocation = typed_options(config, file)
    stack = ExitStack()
    stack.enter_context(awake())
    config.add_cleanup(stack.close)
    if words := taken_for_a_path(config):
        Progress(config).note(
            f"pytest took the word after {words} for a path of tests and made {config.rootpath} "
            f"its rootdir; write {words}=PATH if your own ini file or conftest.py matters"
        )
    return session


def prepare_distribution(config: pytest.Config) -> Distribution:
    """The same for the process that controls those of pytest-xdist.

    Raises:
        pytest.UsageError: what was asked for cannot work; no process is started then.
    """
    session = prepare(config)
    session.close()  # this process measures nothing
    try:
        return Distribution(session, config.getoption("numprocesses"))
    except RunRefused as error:
        raise pytest.UsageError(one_line(str(error))) from None


def begin(run: Session, config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Tell the run what was selected: which tests, of which cells."""
    for item in items:
        call = getattr(item, "callspec", None)
        pair = call.params.get("kv_cell") if call is not None else None
        run.ledger.plan(item.nodeid, str(pair) if pair is not None else "")
    asked = set(run.ledger.pairs)
    run.account.selected = [pair for pair in run.pairs if str(pair) in asked]
    tests = run.ledger.tests()
    if not items and (word := str(config.getoption("keyword", ""))):
        Progress(config).note(
            f"-k '{word}' selects no test{nearest(word, [*suite_tests(run), *map(str, run.pairs)])}"
        )
    run.account.left_out = tuple(name for name in suite_tests(run) if name not in tests)
    if not config.getoption("collectonly"):
        run.begin(process=str(getattr(config, "workerinput", {}).get("workerid", "")))


def suite_tests(run: Session) -> list[str]:
    """Names of the packaged tests that a run of everything would run."""
    off = [*([] if run.speed.on else ["test_speed.py"]),
           *([] if run.speed.ceiling_on else ["test_ceiling.py"]),
           *([] if run.zoo.plan else ["test_zoo.py"])]  # fmt: skip
    written = [
        found.group(1)
        for path in sorted(SUITE.glob("test_*.py"))
        if path.name not in off
        for found in re.finditer(
            r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    ]
    timed = [one.test for one in SPEED_TESTS if run.speed.on]
    return [*written, *timed, *(one.test for one in registry.declared())]


def finish(ended: pytest.Session, run: Session | Distribution, stopped: int | None) -> int | None:
    """Write the files that were asked for; a process of pytest-xdist reports instead.

    Args:
        stopped: the signal that ended the run, if one did.

    Returns:
        The exit code that pytest has to end with; ``None`` leaves it as it is.
    """
    config, progress = ended.config, Progress(ended.config)
    if isinstance(run, Session):
        run.close()
    ledger = run.ledger
    ledger.reason = ledger.reason or str(ended.shouldfail or ended.shouldstop or "")
    with deferred():
        if hasattr(config, "workeroutput"):
            report_back(config.workeroutput, run.result())
            run.end_run()
            return None
        if config.getoption("collectonly"):
            return None
        if isinstance(run, Session):
            run.forecast.remember()
        unwritten = _write(run, progress)
        objections = run.objections()
        run.end_run()
    for line in unwritten:
        progress.note(line)
    if stopped is not None:
        return 128 + stopped
    if unwritten:
        return pytest.ExitCode.INTERNAL_ERROR
    if ended.exitstatus == pytest.ExitCode.OK and (objections or not ledger.whole):
        return pytest.ExitCode.TESTS_FAILED
    return None


def _write(run: Session | Distribution, progress: Progress) -> list[str]:
    """Write what was asked for; one sentence for each file that could not be written."""
    result = run.result()
    if result.is_empty:
        if output.wanted(run.settings, os.environ):
            progress.note("nothing was measured: no file is written")
        return [*run.complaints]
    if not result.complete:
        progress.note(f"{result.incomplete_text}; the same command goes on from there")
    return [*run.complaints, *output.write(run.settings, result, os.environ)]


def show(session: pytest.Session, run: Session | Distribution) -> None:
    """Draw the matrix: the last thing on the screen."""
    config = session.config
    terminal: pytest.TerminalReporter | None = config.pluginmanager.getplugin("terminalreporter")
    if terminal is None or config.getoption("collectonly") or hasattr(config, "workeroutput"):
        return
    result = run.result()
    if run.settings.table is not None:
        terminal.section("Tables", sep="=", blue=True)
        terminal.write_line(_tables(run.settings.table, result).rstrip())
    terminal_view.draw(
        result,
        terminal,
        objections=run.objections(),
        planned=len(run.pairs_asked),
        failed=session.testsfailed,
        page=str(run.settings.report or ""),
    )


def _tables(asked: str, result: Result) -> str:
    try:
        return article(result, format_of(asked))
    except ResultError as error:
        return str(error)
