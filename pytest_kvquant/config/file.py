"""The configuration file: kvquant.toml, or a table of pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pytest_kvquant.config.complaints import place, unknown
from pytest_kvquant.config.options import OPTIONS
from pytest_kvquant.config.setup import FILES, parse_table
from pytest_kvquant.config.words import anchored
from pytest_kvquant.errors import SettingsError

CONFIG_NAME = "kvquant.toml"
TABLES = ("budgets", "drift", "floors", "environment", "expect", "context", "variants")
"""Keys of the configuration file that are tables, not twins of an option."""


def read_file(config: Path | None, root: Path) -> tuple[Path | None, dict[str, object]]:
    """The file that counts, and its table: the one named, else what ``root`` has; ``None``: none.

    Raises:
        SettingsError: it cannot be read.
    """
    if config is not None:
        if not config.is_file():
            raise SettingsError(f"--kv-config {config}: there is no such file.")
        return config, _load_toml(config)
    if (found := root / CONFIG_NAME).is_file():
        return found, _load_toml(found)
    if (found := root / "pyproject.toml").is_file():
        tool = _load_toml(found).get("tool", {})
        if isinstance(tool, dict) and "kvquant" in tool:
            if not isinstance(tool["kvquant"], dict):
                raise SettingsError(f"{found}: tool.kvquant must be a table.")
            return found, tool["kvquant"]
    return None, {}


def _load_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None


def from_file(
    table: Mapping[str, object], path: Path, budgets: Mapping[str, str]
) -> dict[str, object]:
    """Keys as the file spells them (``gpu-layers``) to field names; paths relative to the file."""
    by_key = {option.name: option for option in OPTIONS}
    values: dict[str, object] = {}
    for key, value in table.items():
        if key == "model" and isinstance(value, dict):
            _read_model_table(value, path, values)
        elif key == "context" and isinstance(value, dict):
            values[key] = parse_table(key, value, path)
        elif key in TABLES:
            if key in ("budgets", "drift") and isinstance(value, dict):
                _require_budgets(key, value, path, budgets)
            _refuse_renamed(key, value, path)
            values[key] = value
        elif key in by_key:
            values[by_key[key].field] = anchored(by_key[key], value, path.parent)
        else:
            raise unknown(key, [*by_key, *TABLES], path)
    return values


def _read_model_table(table: Mapping[str, object], path: Path, values: dict[str, object]) -> None:
    """``[model]``: ``path`` is the model, the rest are options of llama.cpp."""
    own = dict(table)
    if (file := own.pop("path", None)) is not None:
        values["model"] = str(path.parent / Path(str(file)).expanduser())
    setup = parse_table("model", own, path)
    for name in FILES:
        if name in setup:
            words = setup[name]
            assert isinstance(words, list)
            setup[name] = [str(path.parent / Path(str(word)).expanduser()) for word in words]
    values["setup"] = setup


def _require_budgets(
    name: str, tables: Mapping[str, object], path: Path, units: Mapping[str, str]
) -> None:
    """See that tables of budgets have known keys, and values that can be budgets."""
    for pattern, table in tables.items():
        if not isinstance(table, dict):
            continue  # its type is complained about with all others
        for key, value in table.items():
            if key not in units:
                where = f' in [{name}."{pattern}"]'
                raise unknown(key, list(units), path, where, (name, pattern))
            if isinstance(value, int | float) and (wrong := why_no_budget(key, value, units[key])):
                at = place(path, [name, pattern, key])
                raise SettingsError(f'{at}: [{name}."{pattern}"] {wrong}.')


def why_no_budget(key: str, value: float, unit: str) -> str:
    """What is wrong with the value of a budget, in words; empty where nothing is."""
    if not 0 <= value < float("inf"):
        return f"budget {key} = {value} must be a number from 0 up"
    if unit == "share" and value > 1:
        return f"budget {key} = {value} is a share: it must not exceed 1"
    return ""


RENAMED = {("floors", "fall"): "slowdown"}
"""Keys of tables that an earlier version read under another name."""


def _refuse_renamed(name: str, tables: object, path: Path) -> None:
    for pattern, table in tables.items() if isinstance(tables, dict) else ():
        for key in table if isinstance(table, dict) else ():
            if newer := RENAMED.get((name, key)):
                raise SettingsError(
                    f"{path}: '{key}' in [{name}.\"{pattern}\"] is called '{newer}' now; the value "
                    "means the same."
                )
