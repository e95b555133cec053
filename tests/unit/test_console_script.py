"""The console script starts what it names."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_the_console_script_names_a_function() -> None:
    module, _, name = PROJECT["scripts"]["kvquant"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
