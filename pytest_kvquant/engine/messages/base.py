"""What all messages have: a name, and fields that JSON carries."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

S = TypeVar("S")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """One message; its fields are plain data, tuples and dataclasses of such."""

    NAME: ClassVar[str] = ""
    """What it is called on the line; the worker's method ``on_<name>`` takes it."""

    @property
    def fields(self) -> dict[str, object]:
        """By name."""
        return plain(self)


def plain(value: object) -> dict[str, object]:
    """A message, or a dataclass within one, as JSON carries it.

    Raises:
        TypeError: it is something else.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} is no part of a message.")


def read(fields: Mapping[str, object], kind: Callable[..., S]) -> S:
    """A message, or a dataclass within one, from what JSON carried; lists stay lists.

    Raises:
        TypeError: a field is missing or unknown.
    """
    inner = _dataclasses_of(kind)
    return kind(
        **{
            name: read(value, inner[name]) if name in inner and isinstance(value, dict) else value
            for name, value in fields.items()
        }
    )


@functools.cache
def _dataclasses_of(kind: Callable[..., object]) -> dict[str, type]:
    """Fields that are dataclasses themselves, by name."""
    hints = typing.get_type_hints(kind)
    return {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }
