"""What is wrong with a value of the configuration, in one sentence: what, where, what is valid."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from pytest_kvquant.config.options import OPTIONS
from pytest_kvquant.errors import SettingsError

WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    bool: "true or false",
    Path: "a path in quotes",
    dict: "a table",
    tuple: "a list",
    list: "a list",
    type(None): "",
}
"""Kinds as a person writes them in TOML."""


def unknown(
    key: str, known: Sequence[str], path: Path, where: str = "", above: Sequence[str] = ()
) -> SettingsError:
    """A key that nothing has.

    Args:
        where: the table, in words.
        above: the same, as keys from the outermost one.
    """
    return SettingsError(
        f"{place(path, [*above, key])}: unknown key '{key}'{where}{nearest(key, known)}"
    )


def misfit(
    kind: type,
    values: Mapping[str, object],
    from_file: Mapping[str, object],
    path: Path | None,
    text: str,
) -> SettingsError:
    """Which value does not fit: that of the file with its line, or that of an option.

    Args:
        kind: the settings' struct.
        values: of file and command line, by field.
        from_file: those of the file.
        text: what was said, where each value fits by itself.
    """
    found = complaint(kind, values)
    if found is None:  # a rule between several of them
        return SettingsError(f"{text}." if path is None else f"{text} (see {path}).")
    (field, *inner), sentence = found
    option = next((one for one in OPTIONS if one.field == field), None)
    if path is None or values[field] != from_file.get(field):
        flag = option.flag if option is not None else f"--kv-{field.replace('_', '-')}"
        return SettingsError(f"{flag}: {sentence}")
    key = option.name if option is not None else field
    name = ".".join(inner[1:]) if inner else key
    told = [f'[{field}."{inner[0]}"]'] if inner else []
    told += [f"{name}:"] if name and not sentence.startswith("unknown key") else []
    return SettingsError(f"{place(path, [key, *inner])}: {' '.join([*told, sentence])}")


def place(path: Path, keys: Sequence[str]) -> str:
    """A file and the line in it where a key stands, as ``kvquant.toml, line 3``.

    Args:
        keys: from the outermost table to the key; those of the file, as it spells them.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return str(path)
    number = _line(lines, keys)
    return f"{path}, line {number}" if number else str(path)


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, where anything is known."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)
    return f"; did you mean '{found[0]}'?" if found else "."


def complaint(kind: type, values: Mapping[str, object]) -> tuple[list[str], str] | None:
    """The first value that does not fit a struct: the keys to it, and a sentence about it.

    Args:
        kind: a :class:`msgspec.Struct`.
        values: by the names of its fields, as a TOML file has them.

    Returns:
        ``None`` where each value fits by itself.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            return [name], f"unknown key '{name}'{nearest(name, hints)}"
        if (found := _misfit(hints[name], value)) is not None:
            return [name, *found[0]], found[1]
    return None


def _misfit(hint: object, value: object) -> tuple[list[str], str] | None:
    if get_origin(hint) is dict and isinstance(value, Mapping):
        inner = get_args(hint)[1]
        for key, one in value.items():
            if (found := _misfit(inner, one)) is not None:
                return [str(key), *found[0]], found[1]
        return None
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and isinstance(value, Mapping):
        found = complaint(hint, value)
        return found or _by_itself(hint, value)
    return _by_itself(hint, value)


def _by_itself(hint: object, value: object) -> tuple[list[str], str] | None:
    try:
        msgspec.convert(value, hint, dec_hook=_as_path)
    except msgspec.ValidationError as error:
        choices = _choices(hint)
        if choices and isinstance(value, str):
            listed = ", ".join(choices)
            return [], f"'{value}' is none of {listed}{nearest(value, choices)}"
        text = str(error)
        if not text.startswith("Expected"):  # a rule of ours, in words
            return [], re.sub(r" - at `\$.*`$", "", text) + "."
        return [], f"{_told(value)} stands where {' or '.join(_kinds(hint))} belongs."
    return None


def _as_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError("Expected a path")


def _choices(hint: object) -> list[str]:
    if get_origin(hint) is Literal:
        return [str(one) for one in get_args(hint)]
    return [choice for inner in _united(hint) for choice in _choices(inner)]


def _kinds(hint: object) -> list[str]:
    if united := _united(hint):
        return list(dict.fromkeys(word for inner in united for word in _kinds(inner)))
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return ["a table"]
    if kind is Literal:
        return [f"one of {', '.join(map(str, get_args(hint)))}"]
    word = WORDS.get(kind, "another kind of value")
    return [word] if word else []


def _united(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()


def _told(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else f"{value!r}"


def _line(lines: Sequence[str], keys: Sequence[str]) -> int:
    """The line of the last of the keys that is found, each looked for below the one before."""
    at, found = 0, 0
    for key in keys:
        wanted = re.compile(rf"""(?<![\w*/-])["']?{re.escape(key)}["']?(?![\w*/-])\s*[=.\]}}]""")
        for number in range(at, len(lines)):
            if not lines[number].lstrip().startswith("#") and wanted.search(lines[number]):
                at, found = number, number + 1
                break
    return found
