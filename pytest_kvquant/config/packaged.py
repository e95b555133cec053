"""Tables that come with the package."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import TypeAlias

import msgspec

Limits: TypeAlias = dict[str, dict[str, dict[str, float]]]
"""By section, then by pattern of pairs, then by name."""


@functools.cache
def read_limits(path: Path) -> Limits:
    """A packaged TOML file, read once: limits are looked up for every cell, depth and verdict."""
    return msgspec.convert(read_table(path), Limits)


def read_table(path: Path) -> dict[str, object]:
    """A packaged TOML file as it stands."""
    return tomllib.loads(path.read_text(encoding="utf-8"))
