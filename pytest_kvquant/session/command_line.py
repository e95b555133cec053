"""The command of a run as it was typed: what of it is repeated, and what pytest misreads."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pytest_kvquant.config.options import OPTIONS

NOT_REPEATED = (
    "pairs",
    "types",
    "skip",
    "shard",
    "json",
    "report",
    "summary",
    "evidence",
    "fresh",
    "live",
    "lines",
    "table",
)
"""Options that choose cells and outputs: the command that repeats one cell leaves them out."""


def typed_options(config: pytest.Config, file: str | None) -> list[str]:
    """The options as typed, for the command that repeats one cell."""
    words = _with_value("--kv-config", file) if file else []
    for option in OPTIONS:
        value = config.getoption(option.dest, None)
        if value is None or option.field in NOT_REPEATED:
            continue
        words += [option.flag] if option.kind == "flag" else _with_value(option.flag, value)
    return words


def _with_value(flag: str, value: str) -> list[str]:
    """An option and its value; what begins with a dash would be taken for options of pytest."""
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]


def taken_for_a_path(config: pytest.Config) -> str:
    """The option whose value moved pytest's rootdir away from where it was started; or nothing.

    pytest looks for its rootdir before it knows the options of plugins, and takes a word after one
    that it does not know for a path to tests. The = leaves it no choice.
    """
    started, root = config.invocation_params.dir, config.rootpath
    if root == started or root in started.parents:
        return ""
    words = [str(word) for word in config.invocation_params.args]
    for option, value in itertools.pairwise(words):
        path = Path(value)
        if option.startswith("--kv-") and "=" not in option and path.exists():
            whole = (started / path).resolve()
            if root in (whole, *whole.parents):
                return option
    return ""
