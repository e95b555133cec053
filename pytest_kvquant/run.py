"""Between pytest and a run: options to settings, refusals to usage errors, results to files."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from pytest_kvquant.errors import RunRefused
from pytest_kvquant.options import OPTIONS
from pytest_kvquant.report import output
from pytest_kvquant.report.progress import Progress
from pytest_kvquant.session import Session
from pytest_kvquant.settings import resolve

NOT_REPEATED = ("pairs", "types", "skip", "shard", "json", "report", "summary", "evidence")
"""Options that choose cells and outputs: the command that repeats one cell leaves them out."""


def prepare(config: pytest.Config) -> Session:
    """Everything before the first cell.

    Raises:
        pytest.UsageError: what was asked for cannot work; pytest then exits with code 4.
    """
    if config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        raise pytest.UsageError(
            "--kv-matrix measures in one pytest process: cells would share cores and devices, and "
            "no process would see the whole matrix. Leave -n out, or give each machine a "
            "--kv-shard and put the results together with kvquant merge."
        )
    typed = {option.field: config.getoption(option.dest) for option in OPTIONS}
    file = config.getoption("kv_config")
    try:
        settings = resolve(typed, config=Path(file) if file else None, root=config.rootpath)
        if settings.baselines is None:
            folder = config.rootpath / "baselines"
            settings = msgspec.structs.replace(settings, baselines=folder)
        output.check(settings)
        session = Session(settings, dict(os.environ), Progress(config))
    except RunRefused as error:
        raise pytest.UsageError(str(error)) from None
    session.invocation = _typed_options(config, file)
    return session


def finish(config: pytest.Config, session: Session) -> bool:
    """Write the files that were asked for; whether all could be written."""
    unwritten = output.write(session.settings, session.result(), os.environ)
    for complaint in unwritten:
        Progress(config).note(complaint)
    return not unwritten


def _typed_options(config: pytest.Config, file: str | None) -> list[str]:
    """The options as typed, for the command that repeats one cell."""
    words = ["--kv-config", file] if file else []
    for option in OPTIONS:
        value = config.getoption(option.dest)
        if value is None or option.field in NOT_REPEATED:
            continue
        words += [option.flag] if option.kind == "flag" else [option.flag, value]
    return words
