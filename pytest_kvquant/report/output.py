"""The files of a run: which are asked for, whether they can be written, and writing them."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.errors import RunRefused
from pytest_kvquant.machine.files import replace
from pytest_kvquant.report.cell_line import PairLine
from pytest_kvquant.results import nonfinite
from pytest_kvquant.results.file import encode
from pytest_kvquant.results.result import Result

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""GitHub's file of a step's summary; every step appends to its own."""


def check(settings: Settings) -> None:
    """Refuse before the first cell what could not be written after the last.

    Raises:
        RunRefused: a file cannot be written there, or what a page needs is not installed.
    """
    for flag in ("json", "report", "summary", "lines"):
        path = getattr(settings, flag)
        if path is not None and (reason := _obstacle(path)):
            raise RunRefused(f"--kv-{flag} {path}: {reason}.")
    for flag in ("evidence", "baselines"):
        folder = getattr(settings, flag)
        if folder is not None and (reason := _no_folder(folder)):
            raise RunRefused(f"--kv-{flag} {folder}: {reason}.")
    _refuse_collisions(settings)
    if settings.live and settings.report is None:
        raise RunRefused("--kv-live rewrites the page of --kv-report PATH; name one.")
    if settings.report is not None:
        from pytest_kvquant.report.html import require_extra

        require_extra("--kv-report")


def wanted(settings: Settings, shell: Mapping[str, str]) -> bool:
    """Whether any file was asked for."""
    asked = (settings.json, settings.report, settings.summary)
    return any(path is not None for path in asked) or bool(shell.get(STEP_SUMMARY))


def write(settings: Settings, result: Result, shell: Mapping[str, str]) -> list[str]:
    """Write every file that was asked for; one that cannot be written does not stop the others.

    Args:
        shell: variables of the run, for ``GITHUB_STEP_SUMMARY``.

    Returns:
        One sentence for each file that could not be written.
    """
    complaints: list[str] = []
    for path, text in _wanted(settings, result, shell):
        try:
            text(path)
        except OSError as error:
            complaints.append(f"{path} could not be written: {error.strerror}.")
        except Exception as error:  # one that fails must not take the others with it
            complaints.append(f"{path} could not be written: {type(error).__name__}: {error}.")
    return complaints


def _refuse_collisions(settings: Settings) -> None:
    """A file that the run reads, or writes already, is not written over."""
    named = ("model", "corpus", "speed_baseline", "json", "report", "summary", "lines")
    taken: dict[str, str] = {}
    for flag in named:
        given = getattr(settings, flag)
        for path in given if isinstance(given, tuple) else filter(None, (given,)):
            other = taken.setdefault(os.path.realpath(path), flag)
            if other != flag:
                raise RunRefused(
                    f"--kv-{flag} {path}: that is the file of --kv-{other.replace('_', '-')}."
                )


def write_live(settings: Settings, result: Result, missing: str) -> None:
    """Draw the page of a run that goes on, marked incomplete.

    A page that cannot be written does not stop the run: the last one is written, or complained of,
    at its end.

    Args:
        missing: what is still to come, in a sentence.
    """
    from pytest_kvquant.report.html import render

    assert settings.report is not None
    with contextlib.suppress(OSError):
        replace(settings.report, render(result, incomplete=missing).encode())


def add_line(path: Path, line: PairLine) -> None:
    """Add what a pair has come to; a line is whole or not there, also of several processes.

    A line that cannot be written does not stop the run: the result has all of it.
    """
    with contextlib.suppress(OSError):
        where = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(where, nonfinite.encode(line) + b"\n")
        finally:
            os.close(where)


def _no_folder(path: Path) -> str | None:
    """Why a folder cannot be made or used, in a few words; whether it can be written shows when it
    is: baselines are read by most runs."""
    if reason := _unnameable(path / "name.json"):
        return reason
    for folder in (path, *path.parents):
        if folder.exists():
            return None if folder.is_dir() else f"{folder} is not a folder"
    return None


def _obstacle(path: Path) -> str | None:
    """Why a file cannot be written, in a few words."""
    if reason := _unnameable(path):
        return reason
    if path.exists() and not path.is_file():
        return "that is a folder" if path.is_dir() else "that is not a regular file"
    if not path.parent.is_dir():
        return "there is no such folder"
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return None
    except OSError as error:
        return f"the folder cannot be written ({error.strerror})"


def _unnameable(path: Path) -> str | None:
    """Why no file can be called that, in a few words."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except ValueError:
        return "a name of a file holds no NUL"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "that name is too long"
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return "that name is not UTF-8, and cannot be written into a report"
    return None


def _wanted(
    settings: Settings, result: Result, shell: Mapping[str, str]
) -> list[tuple[Path, Callable[[Path], None]]]:
    from pytest_kvquant.report.markdown import summary

    def page(path: Path) -> None:
        from pytest_kvquant.report.html import render

        replace(path, render(result).encode())

    def append(path: Path) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(summary(result))

    wanted: list[tuple[Path, Callable[[Path], None]]] = []
    if settings.json is not None:
        wanted.append((settings.json, lambda path: replace(path, encode(result))))
    if settings.report is not None:
        wanted.append((settings.report, page))
    if settings.summary is not None:
        wanted.append((settings.summary, lambda path: replace(path, summary(result).encode())))
    elif step := shell.get(STEP_SUMMARY):
        wanted.append((Path(step), append))
    return wanted
