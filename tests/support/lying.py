"""GGUF headers that lie: a corpus made from one honest header, a lie at a time.

Every file is small; what it claims is not.
"""

from __future__ import annotations

import ast
import struct
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest_kvquant
from pytest_kvquant.inputs.header_fields import Fields

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64 = 4, 5, 6, 7, 8, 9, 10, 11
SCALARS = {UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?", UINT64: "<Q", INT64: "<q"}
HUGE = (1 << 16, (1 << 31) - 1, (1 << 32) - 1, 1 << 48, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


class Key(NamedTuple):
    """One key of a header, its value packed."""

    name: bytes
    kind: int
    packed: bytes


class Table(NamedTuple):
    """One line of the tensor table."""

    name: bytes
    shape: tuple[int, ...]
    type: int
    offset: int
    dimensions: int | None = None
    """Claimed; ``None``: as many as there are."""


class Honest(NamedTuple):
    """A header with nothing wrong."""

    keys: tuple[Key, ...]
    tensors: tuple[Table, ...]
    data: int = 4096
    """Bytes of weights."""
    magic: bytes = b"GGUF"
    version: int = 3
    n_keys: int | None = None
    n_tensors: int | None = None


def text(value: bytes, length: int | None = None) -> bytes:
    """A string, its length claimed."""
    return struct.pack("<Q", len(value) if length is None else length) + value


def scalar(name: str, kind: int, value: float) -> Key:
    return Key(name.encode(), kind, struct.pack(SCALARS[kind], value))


def string(name: str, value: bytes, length: int | None = None) -> Key:
    return Key(name.encode(), STRING, text(value, length))


def array(name: str, kind: int, items: bytes, count: int) -> Key:
    return Key(name.encode(), ARRAY, struct.pack("<IQ", kind, count) + items)


def numbers(name: str, *values: int) -> Key:
    return array(name, UINT32, struct.pack(f"<{len(values)}I", *values), len(values))


TOKENS = b"".join(text(token) for token in (b"<s>", b"a", b"b"))

HONEST = Honest(
    keys=(
        string("general.architecture", b"llama"),
        string("general.name", b"honest"),
        scalar("llama.block_count", UINT32, 2),
        scalar("llama.context_length", UINT32, 512),
        scalar("llama.embedding_length", UINT32, 64),
        scalar("llama.attention.head_count", UINT32, 4),
        numbers("llama.attention.head_count_kv", 2, 2),
        scalar("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        array("tokenizer.ggml.tokens", STRING, TOKENS, 3),
    ),
    tensors=(Table(b"token_embd.weight", (64, 8), 0, 0), Table(b"output.weight", (64, 8), 1, 2048)),
)


def packed(header: Honest) -> bytes:
    """The bytes of a file."""
    keys, tensors = header.keys, header.tensors
    parts = [
        header.magic,
        struct.pack(
            "<IQQ",
            header.version,
            len(tensors) if header.n_tensors is None else header.n_tensors,
            len(keys) if header.n_keys is None else header.n_keys,
        ),
        *(text(key.name) + struct.pack("<I", key.kind) + key.packed for key in keys),
    ]
    for table in tensors:
        count = len(table.shape) if table.dimensions is None else table.dimensions
        parts += [text(table.name), struct.pack("<I", count)]
        parts += [struct.pack("<Q", size) for size in table.shape]
        parts.append(struct.pack("<IQ", table.type, table.offset))
    head = b"".join(parts)
    return head + bytes(-len(head) % 32) + bytes(header.data)


def with_key(key: Key) -> bytes:
    """The honest file with one key replaced, or added."""
    kept = [one for one in HONEST.keys if one.name != key.name]
    return packed(HONEST._replace(keys=(*kept, key)))


def without_key(name: str) -> bytes:
    kept = tuple(one for one in HONEST.keys if one.name != name.encode())
    return packed(HONEST._replace(keys=kept))


def with_tensor(table: Table) -> bytes:
    return packed(HONEST._replace(tensors=(*HONEST.tensors, table)))


def lies() -> Iterator[tuple[str, bytes]]:
    """Every lie by name."""
    yield from _counts()
    yield from _types()
    yield from _values()
    yield from _tensors()
    yield from _frames()


COUNTS = ("llama.block_count", "llama.embedding_length", "llama.attention.head_count")
"""Without which there is no model."""

PACKAGE = Path(pytest_kvquant.__file__).parent
READERS = tuple(
    name for name, what in vars(Fields).items() if callable(what) and not name.startswith("_")
)
"""What ``Fields`` reads a key with: each method says a type."""
KEY = r"(\{arch\}|[a-z]+)\.[a-z0-9_.]+"


class Read(NamedTuple):
    """A line that reads a key of a header."""

    where: str
    method: str
    key: str | None
    """``None``: it does not stand in the line."""


def reads() -> Iterator[Read]:
    """Every line of the package that reads a key through ``Fields``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "import Fields" not in source:
            continue
        tree = ast.parse(source)
        names = _names_of_fields(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in READERS or not _is_fields(node.func.value, names):
                continue
            key = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
            yield Read(where, node.func.attr, key if isinstance(key, str) else None)


def _names_of_fields(tree: ast.Module) -> set[str]:
    """What a ``Fields`` is called in a file: as an argument, and where one is assigned."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation:
            if "Fields" in ast.unparse(node.annotation):
                names.add(node.arg)
        elif isinstance(node, ast.Assign) and _is_fields(node.value):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _is_fields(node: ast.expr, names: Container[str] = ()) -> bool:
    """Whether it is a ``Fields``: by name, or made on the spot."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "Fields"
    return isinstance(node, ast.Name) and node.id in names


def read_by(*methods: str) -> tuple[str, ...]:
    """Every key that is read by these methods, of a header of llama."""
    keys = {one.key for one in reads() if one.method in methods and one.key is not None}
    return tuple(sorted(key.replace("{arch}", "llama") for key in keys))


MORE_COUNTS = tuple(sorted({*read_by("count", "counts"), "general.alignment"} - {*COUNTS}))
"""The alignment is read with the header itself."""


def _of_another_type(name: str, right: str) -> Iterator[tuple[str, bytes]]:
    """A key that has every type but the right one.

    Args:
        right: the method that reads it.
    """
    whole, real = scalar(name, UINT32, 7), scalar(name, FLOAT32, 2.5)
    wrong = {
        "text": string(name, b"four"),
        "a real number": real,
        "not a number": scalar(name, FLOAT32, float("nan")),
        "a whole number": whole,
        "a flag": scalar(name, BOOL, 1),
        "a list of text": array(name, STRING, text(b"a") * 2, 2),
        "a list of numbers": numbers(name, 1, 2),
        "a list of real numbers": array(name, FLOAT32, struct.pack("<2f", 1, 2), 2),
    }
    for what in RIGHT[right]:
        del wrong[what]
    for what, key in wrong.items():
        yield f"{name} is {what}", with_key(key)


RIGHT = {
    "count": {"a whole number"},
    "counts": {"a whole number", "a list of numbers"},
    "flag": {"a flag"},
    "flags": {"a list of numbers"},
    "number": {"a whole number", "a real number"},
    "text": {"text"},
}
"""What each method of ``Fields`` takes; all else is a lie about a key that it reads."""


def _counts() -> Iterator[tuple[str, bytes]]:
    for number in HUGE:
        yield f"{number:,} keys", packed(HONEST._replace(n_keys=number))
        yield f"{number:,} tensors", packed(HONEST._replace(n_tensors=number))
        yield f"{number:,} tokens", with_key(array("tokenizer.ggml.tokens", STRING, TOKENS, number))
        yield (
            f"{number:,} heads",
            with_key(array("llama.attention.head_count", UINT32, b"", number)),
        )
        yield f"{number:,} bytes of name", with_key(string("general.name", b"x", number))
        yield (
            f"{number:,} bytes of token",
            with_key(array("tokenizer.ggml.tokens", STRING, text(b"x", number), 3)),
        )
        yield f"{number:,} layers", with_key(scalar("llama.block_count", UINT64, number))
    yield "more keys than there are", packed(HONEST._replace(n_keys=len(HONEST.keys) + 1))
    yield "fewer keys than there are", packed(HONEST._replace(n_keys=2))


def _types() -> Iterator[tuple[str, bytes]]:
    for method in READERS:
        for name in read_by(method):
            yield from _of_another_type(name, method)
    yield from _of_another_type("general.alignment", "count")
    yield (
        "head counts are negative",
        with_key(array("llama.attention.head_count_kv", INT32, struct.pack("<2i", -1, -2), 2)),
    )
    yield "an unknown type", with_key(Key(b"llama.odd", 99, b""))
    yield "a list of lists", with_key(array("llama.odd", ARRAY, b"", 2))
    yield "a list of an unknown type", with_key(array("llama.odd", 77, b"", 2))


def _values() -> Iterator[tuple[str, bytes]]:
    for name in (*COUNTS, *MORE_COUNTS):
        yield f"{name} is negative", with_key(scalar(name, INT32, -3))
        yield f"{name} is 2⁶³", with_key(scalar(name, UINT64, 1 << 63))
    for name in COUNTS:
        yield f"{name} is 0", with_key(scalar(name, UINT32, 0))
        yield f"{name} is missing", without_key(name)
    yield "fewer heads than layers", with_key(numbers("llama.attention.head_count_kv", 2))
    yield "alignment 3", with_key(scalar("general.alignment", UINT32, 3))
    yield "alignment 0", with_key(scalar("general.alignment", UINT32, 0))
    yield (
        "architecture with control characters",
        with_key(string("general.architecture", b"lla\x1b[31mma\n")),
    )
    yield "architecture that is no UTF-8", with_key(string("general.architecture", b"\xff\xfe"))
    yield "an empty architecture", with_key(string("general.architecture", b""))
    yield "no architecture", without_key("general.architecture")
    yield "a key twice", packed(HONEST._replace(keys=(*HONEST.keys, HONEST.keys[2])))
    yield "a key with control characters", with_key(Key(b"\x1b[2J\n", UINT32, bytes(4)))
    yield "a key with an unknown type and control characters", with_key(Key(b"\x1b[2J\n", 99, b""))


def _tensors() -> Iterator[tuple[str, bytes]]:
    for number in HUGE:
        yield f"a tensor of {number:,} rows", with_tensor(Table(b"t", (number, number), 0, 0))
        yield f"a tensor at {number:,}", with_tensor(Table(b"t", (64, 1), 0, number))
        yield (
            f"a tensor of {number & 0xFFFFFFFF:,} dimensions",
            with_tensor(Table(b"t", (), 0, 0, dimensions=number & 0xFFFFFFFF)),
        )
    yield "a tensor past the end", with_tensor(Table(b"t", (64, 64), 0, 4096))
    yield "a tensor at an odd place", with_tensor(Table(b"t", (64, 1), 0, 7))
    yield "a tensor twice", with_tensor(HONEST.tensors[0])
    yield "a tensor without a name", with_tensor(Table(b"", (64, 1), 0, 0))
    yield "no tensors", packed(HONEST._replace(tensors=()))


def _frames() -> Iterator[tuple[str, bytes]]:
    whole = packed(HONEST)
    for version in (0, 1, 4, 255, 3 << 24, (1 << 32) - 1):
        yield f"version {version:,}", packed(HONEST._replace(version=version))
    for size in (0, 3, 4, 7, 8, 15, 23, 24, 31, 60, 200, len(whole) - 4096, len(whole) - 1):
        yield f"cut after {size} bytes", whole[:size]
    yield "a magic in capitals", packed(HONEST._replace(magic=b"gguf"))
    yield "zeros after the counts", whole[:24] + bytes(2000)
    yield "ones after the counts", whole[:24] + b"\xff" * 2000


def mutated(whole: bytes, seed: int, header: int) -> bytes:
    """``whole`` with one to four changes in its first ``header`` bytes, by ``seed``."""
    import random

    chosen = random.Random(seed)
    content = bytearray(whole)
    for _ in range(chosen.randint(1, 4)):
        at = chosen.randrange(4, header)
        kind = chosen.randrange(5)
        if kind == 0:
            content[at] = chosen.randrange(256)
        elif kind == 1:
            content[at] ^= 1 << chosen.randrange(8)
        elif kind == 2:
            content[at : at + 8] = struct.pack("<Q", chosen.choice(HUGE))
        elif kind == 3:
            del content[at : at + chosen.randint(1, 16)]
        else:
            content[at:at] = chosen.randbytes(chosen.randint(1, 16))
    return bytes(content)
