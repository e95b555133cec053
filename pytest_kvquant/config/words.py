"""Values as people type them, on a command line or in the file, made to those of a setting."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pytest_kvquant.config.options import FLAG, INT, INTS, LIST, NUMBER, PATHS, Option
from pytest_kvquant.errors import SettingsError

CORPUS_NAMES = ("prose", "code", "chat", "tools", "self")
"""What may stand for a text in ``corpus`` beside the path of a file."""


def _anchored_word(word: str, folder: Path) -> str:
    return word if word in CORPUS_NAMES else str(folder / Path(word).expanduser())


def _paths(word: str) -> list[str]:
    """Names and paths from a comma list; a file whose own name has a comma is one path."""
    if Path(word).expanduser().is_file():
        return [str(Path(word).expanduser())]
    words = [item for part in word.split(",") if (item := part.strip())]
    return [item if item in CORPUS_NAMES else str(Path(item).expanduser()) for item in words]


def anchored(option: Option, value: object, folder: Path) -> object:
    """A path of the file, relative to its folder; the bare name of a program is found as a shell
    finds it."""
    if isinstance(value, list) and option.metavar.startswith(("PATH", "DIR")):
        return [anchored(option._replace(metavar="PATH"), one, folder) for one in value]
    if option.kind == PATHS and isinstance(value, str | list):
        words = [value] if isinstance(value, str) else value
        return [_anchored_word(word, folder) if isinstance(word, str) else word for word in words]
    if option.metavar in {"PATH", "DIR"} and isinstance(value, str):
        bare = option.name.endswith("python") and Path(value).name == value
        if bare and not (folder / value).exists() and (found := shutil.which(value)):
            return found
        return str(folder / Path(value).expanduser())
    return value


_NUMERIC: Mapping[str, Callable[[str], object]] = {
    INT: int,
    INTS: lambda word: [int(item) for item in word.split(",") if item.strip()],
    NUMBER: float,
}


def parsed(option: Option, word: str) -> object:
    """A word of the command line as a value of its option.

    Raises:
        SettingsError: it is no number, and has to be one.
    """
    if option.kind in _NUMERIC:
        try:
            return _NUMERIC[option.kind](word)
        except ValueError:
            raise SettingsError(f"{option.flag} {word}: not a number.") from None
    if option.kind == FLAG:
        return True
    if option.kind == PATHS:
        return _paths(word)
    if option.kind == LIST:
        return [item for part in word.split(",") if (item := part.strip())]
    if option.metavar in {"PATH", "DIR"}:
        return str(Path(word).expanduser())
    return word
