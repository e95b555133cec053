"""Fields of a GGUF header by name, each with the type and the bounds that it has to have."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_kvquant.inputs.gguf_header import Array, BadHeader, Value

MOST = (1 << 31) - 1
"""llama.cpp holds counts in 32 bits."""


class Fields:
    """The fields of one architecture, which stands in a key as ``{arch}``, as in GGUF's own names.

    The line that reads a key is its declaration: the key stands in it as it is, the method says its
    type. Headers that lie about it are made from that line (``tests/support/lying.py``).

    Every method raises :class:`~pytest_kvquant.inputs.gguf_header.BadHeader` where the header has
    the key with another type or a value out of bounds.
    """

    def __init__(self, fields: Mapping[str, Value], architecture: str) -> None:
        self._fields = fields
        self._architecture = architecture

    def __contains__(self, key: str) -> bool:
        return self._full(key) in self._fields

    def count(self, key: str, default: int | None = None, *, most: int = MOST) -> int:
        """A number from 0 to ``most``; one that is missing without a default is an error."""
        value = self._fields.get(self._full(key))
        if value is None:
            if default is None:
                raise BadHeader(f"has no {self._full(key)!r} in its header")
            return default
        return self._bounded(key, value, most)

    def flag(self, key: str, default: bool) -> bool:
        """Yes or no; numbers 0 and 1 count as well."""
        value = self._fields.get(self._full(key), default)
        if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
            return bool(value)
        raise self._wrong(key, value, "true or false")

    def number(self, key: str, default: float = 0.0) -> float:
        """A real number."""
        value = self._fields.get(self._full(key), default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, value, "a number")
        return float(value)

    def text(self, key: str) -> str | None:
        """A string, ``None`` where there is none."""
        value = self._fields.get(self._full(key))
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(key, value, "text")

    def counts(self, key: str, length: int, default: int | None = None) -> tuple[int, ...]:
        """One number per layer; a single one holds for all."""
        value = self._fields.get(self._full(key))
        if not isinstance(value, tuple):
            return (self.count(key, default),) * length
        if len(value) < length:
            raise self._wrong(key, value, f"{length:,} numbers, one per layer")
        return tuple(self._bounded(key, item, MOST) for item in value[:length])

    def flags(self, key: str) -> tuple[bool, ...] | None:
        """A list of yes and no; ``None`` where there is no list."""
        value = self._fields.get(self._full(key))
        if not isinstance(value, tuple):
            return None
        if not all(isinstance(item, (bool, int)) for item in value):
            raise self._wrong(key, value, "a list of true and false")
        return tuple(bool(item) for item in value)

    def _full(self, key: str) -> str:
        return key.replace("{arch}", self._architecture)

    def _bounded(self, key: str, value: object, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self._wrong(key, value, f"a number from 0 to {most:,}")
        return value

    def _wrong(self, key: str, value: object, wanted: str) -> BadHeader:
        shown = f"a list of {value.count:,}" if isinstance(value, Array) else repr(value)[:60]
        return BadHeader(f"has {self._full(key)!r} = {shown} in its header, not {wanted}")
