"""Numbers that are none, in JSON that every reader reads.

JSON has no NaN and no infinity; ``null`` is another thing (not measured), and a bare ``NaN`` is an
error to most readers. In a record a figure that is not finite is one of three words, ``"nan"``,
``"inf"`` and ``"-inf"``, which the schema allows wherever it allows a number. What compares figures
must not take one of them for small: see :func:`within`.
"""

from __future__ import annotations

import math
from typing import TypeVar

import msgspec

from pytest_kvquant.numerics.plain import Json

WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""The words, and what they mean."""

T = TypeVar("T")


def within(figure: float, limit: float) -> bool:
    """Whether a figure is known to be at most its limit: never where either is NaN.

    >>> within(1, 2), within(math.nan, 2), within(1, math.nan), within(math.inf, 2)
    (True, False, False, False)
    """
    return figure <= limit


def worst(figures: list[float], least: float = 0.0) -> float:
    """The largest, at least ``least``; NaN as soon as one is NaN, wherever it stands.

    >>> worst([1.0, 3.0]), worst([]), worst([1.0, math.nan, 3.0])
    (3.0, 0.0, nan)
    """
    return math.nan if any(map(math.isnan, figures)) else max(figures, default=least)


def encode(record: object) -> bytes:
    """The record as JSON, with words for what is not finite."""
    return msgspec.json.encode(_worded(msgspec.to_builtins(record)))


def decode(data: bytes, kind: type[T]) -> T:
    """Read what :func:`encode` wrote.

    Raises:
        msgspec.DecodeError: it is not JSON, or not of this shape.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        if not any(f'"{word}"'.encode() in data for word in WORDS):
            raise
    # Only now the decoder that turns words into numbers: it is lenient elsewhere too, so what it
    # read has to be, word for word, what was written.
    found = msgspec.json.decode(data, type=kind, strict=False)
    written, read = msgspec.json.decode(data), msgspec.json.decode(encode(found))
    if not _extends(read, written):
        return msgspec.json.decode(data, type=kind)  # raises, and says where
    return found


def convert(table: object, kind: type[T]) -> T:
    """The same from plain data that was decoded already.

    Raises:
        msgspec.ValidationError: it is not of this shape.
    """
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError:
        return decode(msgspec.json.encode(table), kind)


def allow(schema: Json) -> Json:
    """A JSON schema in which every number may be one of the words instead."""
    if isinstance(schema, list):
        return [allow(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: allow(value) for name, value in schema.items()}
    if schema.get("type") != "number":
        return inner
    told = {name: inner.pop(name) for name in ("description", "title", "default") if name in inner}
    return {"anyOf": [inner, {"enum": list(WORDS)}], **told}


def _worded(value: Json) -> Json:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {name: _worded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_worded(one) for one in value]
    return value


def _extends(read: object, written: object) -> bool:
    """Whether everything that was written was read as it stands; defaults may be added."""
    if isinstance(written, dict):
        return isinstance(read, dict) and all(
            name not in read or _extends(read[name], value) for name, value in written.items()
        )
    if isinstance(written, list):
        return (
            isinstance(read, list)
            and len(read) == len(written)
            and all(map(_extends, read, written))
        )
    return bool(read == written) and isinstance(read, bool) == isinstance(written, bool)
