"""Plain data: what JSON carries, and what TOML does but for its dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A value of a JSON document, before anything has looked what it is."""
