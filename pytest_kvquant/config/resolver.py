"""The one resolver of settings: command line > file > defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from pytest_kvquant.config.complaints import misfit
from pytest_kvquant.config.file import CONFIG_NAME, from_file, read_file
from pytest_kvquant.config.options import OPTIONS
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.config.setup import checked, parse_words
from pytest_kvquant.config.words import parsed
from pytest_kvquant.errors import SettingsError


def find_root(start: Path) -> Path:
    """The project's folder: ``start`` or the nearest above it with a configuration, else ``start``.

    Not pytest's ``rootdir``: that is found before plugins are known, so that the path after
    ``--kv-model`` counts as one of the tests, and the model's folder as the project's.
    """
    for folder in (start, *start.parents):
        if (folder / CONFIG_NAME).is_file() or (folder / "pyproject.toml").is_file():
            return folder
        # What lies above a repository, or above the home folder, is another's business.
        if (folder / ".git").exists() or folder == Path.home():
            break
    return start


def resolve(
    command_line: Mapping[str, str | None],
    *,
    config: Path | None,
    root: Path,
    budgets: Mapping[str, str],
) -> Settings:
    """Settings of a run: defaults, overlaid by the file, overlaid by the command line.

    Args:
        command_line: option field name to the word typed, ``None`` where nothing was.
        config: ``--kv-config``; without it ``kvquant.toml``, then ``[tool.kvquant]`` of
            ``pyproject.toml``, is looked for in ``root``.
        root: the project's folder.
        budgets: unit by key, of the budgets that gates and checks declare.

    Raises:
        SettingsError: unknown key (the nearest valid one is named), wrong type, bad value.
    """
    path, values = read_file(config, root)
    of_file: dict[str, object] = {}
    if path is not None:
        of_file = from_file(values, path, budgets)
        values = dict(of_file)
    for option in OPTIONS:
        word = command_line.get(option.field)
        if word is not None:
            values[option.field] = parsed(option, word)
    _set_up(values, typed={name for name, word in command_line.items() if word is not None})
    try:
        settings = msgspec.convert(values, Settings, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise misfit(Settings, values, of_file, path, str(error)) from None
    return _of_variant(settings)


def _of_variant(settings: Settings) -> Settings:
    """The environment of the variant that was asked for, over that of the file."""
    if settings.variant is None:
        return settings
    if settings.variant not in settings.variants:
        known = ", ".join(settings.variants) or "none"
        raise SettingsError(
            f"--kv-variant {settings.variant}: [variants] of the configuration has no such table; "
            f"it has {known}."
        )
    environment = {**settings.environment, **settings.variants[settings.variant]}
    return msgspec.structs.replace(settings, environment=environment)


def _set_up(values: dict[str, object], typed: Collection[str]) -> None:
    """Put the options of llama.cpp together: tables and keys of the file, then words as typed."""
    setup: dict[str, object] = {}
    for table in (values.pop("context", {}), values.get("setup", {})):
        if isinstance(table, dict):
            setup |= table
    for name in sorted(("llama", "rpc"), key=lambda one: one in typed):
        value = values.get(name)
        if name == "llama" and isinstance(value, str):
            setup |= parse_words(value)
        elif name == "rpc" and isinstance(value, list) and value:
            setup["rpc"] = checked("rpc", value)
    if setup:
        values["setup"] = setup


def _decode_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"a path is written as a string, not as {value!r}")
