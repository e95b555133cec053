"""Tables that come with the package."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

from pytest_kvquant.numerics.untyped import Parsed


@functools.cache
def read_table(path: Path) -> dict[str, Parsed]:
    """A packaged TOML file, read once: limits are looked up for every cell, depth and verdict."""
    return tomllib.loads(path.read_text(encoding="utf-8"))
