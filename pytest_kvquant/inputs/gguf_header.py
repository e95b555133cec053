"""The header of a GGUF file, read by one that trusts no number in it.

The ``gguf`` package's reader makes NumPy views of whatever counts and offsets a file claims, and
several per token of a vocabulary. Here the file's size bounds every step, every value has a type,
and what does not fit is one sentence.
"""

from __future__ import annotations

import functools
import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

Scalar = bool | int | float | str
MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)

MOST_KEYS: Final = 1 << 16
MOST_TENSORS: Final = 1 << 18
MOST_DIMENSIONS: Final = 4
MOST_ITEMS: Final = 1 << 24
"""Of an array; today's largest vocabularies have 2¹⁸ tokens and 2¹⁹ merges."""
KEPT_ITEMS: Final = 4096
"""Longer arrays (a vocabulary) are stepped over, not kept."""
LONGEST_KEY: Final = (1 << 16) - 1
KEPT_TEXT: Final = 1 << 20
"""Bytes of a string; longer ones are cut. Chat templates have some ten thousand."""

_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
                   10: "<Q", 11: "<q", 12: "<d"}  # fmt: skip
_STRING, _ARRAY = 8, 9
_NAMES: Final = {0: "uint8", 1: "int8", 2: "uint16", 3: "int16", 4: "uint32", 5: "int32",
                 6: "float32", 7: "bool", 8: "string", 9: "array", 10: "uint64", 11: "int64",
                 12: "float64"}  # fmt: skip

BLOCKS: Final[Mapping[int, tuple[int, int]]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
"""Elements and bytes of a block, by ggml's number of a weight type, as every build has them. A
fork's own types are not among them: of such a tensor only the start is known."""


class BadHeader(ValueError):
    """What is wrong with the file, as the end of a sentence that begins with its name."""


class Array(msgspec.Struct, frozen=True):
    """An array that is too long to keep, by its length."""

    count: int


Value = Scalar | tuple[Scalar, ...] | Array


class TensorInfo(NamedTuple):
    """A line of the tensor table."""

    name: str
    shape: tuple[int, ...]
    """Input features first, as ggml has it."""
    type: int
    """ggml's number."""
    offset: int
    """Bytes from the start of the data."""


class Header(NamedTuple):
    """What stands before the weights."""

    version: int
    fields: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_at: int
    """Offset of the data in the file."""
    expected_size: int
    """Bytes that the file needs to hold all its tensors."""


def read_header(path: Path) -> Header:
    """Read everything before the weights.

    Raises:
        BadHeader: not GGUF, of another version, cut off, or no sensible header.
        OSError: the file cannot be read.
    """
    state = path.stat()
    return _read(path, (state.st_ino, state.st_mtime_ns, state.st_size))


@functools.lru_cache(maxsize=8)
def _read(path: Path, _state: tuple[int, ...]) -> Header:
    """Each state of a file is read once: several parts of a run ask for the same header."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < len(MAGIC):
            raise BadHeader("is empty" if size == 0 else f"has only {size} bytes")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse(data)


def parse(data: mmap.mmap | bytes) -> Header:
    """Read a header from the bytes of a file.

    Raises:
        BadHeader: as :func:`read_header`.
    """
    reader = _HeaderReader(data)
    if data[:4] != MAGIC:
        raise BadHeader(f"is not a GGUF file (it starts with {bytes(data[:4])!r})")
    reader.at = 4
    version = reader.number("<I")
    if version not in VERSIONS:
        raise BadHeader(_version_problem(version))
    tensors, keys = reader.number("<Q"), reader.number("<Q")
    _bounded(keys, MOST_KEYS, "keys")
    _bounded(tensors, MOST_TENSORS, "tensors")
    fields: dict[str, Value] = {}
    for _ in range(keys):
        key = reader.text(LONGEST_KEY, "a key")
        if key in fields:
            raise BadHeader(f"has the key {key[:80]!r} twice")
        fields[key] = reader.value(key)
    table = _table(reader, tensors)
    alignment = _alignment(fields)
    start = -(-reader.at // alignment) * alignment
    return Header(version, fields, table, start, max([start, *_ends(table, start, alignment)]))


def _version_problem(version: int) -> str:
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if swapped in VERSIONS:
        return "is a big-endian GGUF file, which this machine's llama.cpp does not load"
    known = " and ".join(str(number) for number in VERSIONS)
    return f"is a GGUF file of version {version:,}; known are {known}"


def _bounded(count: int, most: int, what: str) -> None:
    if count > most:
        raise BadHeader(f"claims {count:,} {what}, so its header is damaged")


def _table(reader: _HeaderReader, count: int) -> tuple[TensorInfo, ...]:
    found: dict[str, TensorInfo] = {}
    for _ in range(count):
        name = reader.text(LONGEST_KEY, "a tensor's name")
        if name in found:
            raise BadHeader(f"has the tensor {name[:80]!r} twice")
        dimensions = reader.number("<I")
        if dimensions > MOST_DIMENSIONS:
            raise BadHeader(f"claims {dimensions:,} dimensions for the tensor {name[:80]!r}")
        shape = tuple(reader.number("<Q") for _ in range(dimensions))
        if math.prod(shape) >= 1 << 62:
            raise BadHeader(f"claims {math.prod(shape):,} elements for the tensor {name[:80]!r}")
        found[name] = TensorInfo(name, shape, reader.number("<I"), reader.number("<Q"))
    return tuple(found.values())


def _alignment(fields: Mapping[str, Value]) -> int:
    alignment = fields.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 1 << 30 or alignment & (alignment - 1):
        raise BadHeader(f"has a 'general.alignment' of {_shown(alignment)}, not a power of two")
    return alignment


def _ends(table: tuple[TensorInfo, ...], start: int, alignment: int) -> list[int]:
    ends = []
    for tensor in table:
        if tensor.offset % alignment or tensor.offset >= 1 << 62:
            raise BadHeader(
                f"has the tensor {tensor.name[:80]!r} at the impossible offset {tensor.offset:,}"
            )
        block, size = BLOCKS.get(tensor.type, (1, 0))
        ends.append(start + tensor.offset + math.prod(tensor.shape) // block * size)
    return ends


_LENGTH = struct.Struct("<Q")
"""Bytes of a string, which stand before it."""


class _HeaderReader:
    """A place in the bytes, which no step leaves."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self.data = data
        self.size = len(data)
        self.at = 0

    def number(self, form: str) -> int:
        """An integer of that :mod:`struct` form."""
        return int(self._scalar(form))

    def text(self, most: int, what: str) -> str:
        """A string of at most ``most`` bytes; what is not UTF-8 is replaced."""
        length = self.number("<Q")
        if length > most:
            raise BadHeader(f"claims {length:,} bytes for {what}, so its header is damaged")
        start = self._step(length, what)
        return bytes(self.data[start : start + length]).decode(errors="replace")

    def value(self, key: str) -> Value:
        """What stands behind a key."""
        kind = self.number("<I")
        if kind == _STRING:
            return self._long_text(key)
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _SCALARS:
            raise BadHeader(f"has the key {key[:80]!r} with an unknown type ({kind:,})")
        return self._scalar(_SCALARS[kind])

    def _long_text(self, key: str) -> str:
        length = self.number("<Q")
        start = self._step(length, f"the key {key[:80]!r}")
        kept = min(length, KEPT_TEXT)
        return bytes(self.data[start : start + kept]).decode(errors="replace")

    def _array(self, key: str) -> Value:
        kind, count = self.number("<I"), self.number("<Q")
        where = f"the key {key[:80]!r}"
        if count > MOST_ITEMS:
            raise BadHeader(f"claims {count:,} items for {where}, so its header is damaged")
        if kind == _STRING:
            return self._strings(count, where)
        if kind not in _SCALARS:
            raise BadHeader(f"has {where} with items of an unusable type ({kind:,})")
        form = _SCALARS[kind]
        width = struct.calcsize(form)
        start = self._step(count * width, where)
        if count > KEPT_ITEMS:
            return Array(count)
        raw = bytes(self.data[start : start + count * width])
        return tuple(item for (item,) in struct.iter_unpack(form, raw))

    def _strings(self, count: int, where: str) -> Value:
        if count > KEPT_ITEMS:
            self._pass_strings(count, where)
            return Array(count)
        kept: list[Scalar] = []
        for _ in range(count):
            length = self.number("<Q")
            start = self._step(length, where)
            if length <= KEPT_TEXT:
                kept.append(bytes(self.data[start : start + length]).decode(errors="replace"))
        return tuple(kept)

    def _pass_strings(self, count: int, where: str) -> None:
        """A vocabulary has hundreds of thousands: no object of each, no call for each."""
        length_at, data, last, at = _LENGTH.unpack_from, self.data, self.size - 8, self.at
        for _ in range(count):
            at += 8 + (length_at(data, at)[0] if at <= last else 0)
            if at > self.size:
                break
        self._step(at - self.at, where)

    def _scalar(self, form: str) -> Scalar:
        start = self._step(struct.calcsize(form), "its header")
        (value,) = struct.unpack_from(form, self.data, start)
        found: Scalar = value
        return found

    def _step(self, length: int, what: str) -> int:
        """Go on by ``length`` bytes; returns where they start."""
        start = self.at
        if start + length > self.size:
            raise BadHeader(
                f"ends inside {what}: {start + length:,} bytes are needed, "
                f"the file has {self.size:,}"
            )
        self.at = start + length
        return start


def _shown(value: object) -> str:
    """A value of a header, short enough for a line."""
    return repr(value)[:60]
