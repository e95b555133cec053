"""Child side: whether the bindings describe the library that is loaded, and which release would.

``llama_context_params`` and ``llama_model_params`` travel by value and change every few weeks. The
library's own defaults tell where its fields are: a layout fits only if every field shows its known
default there. The defaults are read into a buffer with room to spare, so that a library with a
larger struct writes over nothing.
"""

from __future__ import annotations

import ctypes
import json
import re
import struct
from collections.abc import Iterable, Sequence
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeAlias, TypedDict

ROOM = 1024
"""Bytes that a returned struct may take; the largest known one has 160."""

OBSERVED = ROOM // 2
"""How much of it must show the paint, before anything is concluded from what does not."""

ROUNDS = 2
"""Of two calls each: a byte that shows the paint once is unwritten, whatever disturbed it."""

TABLE = Path(__file__).parents[2] / "data" / "bindings.json"
"""Struct layouts, defaults and bound symbols of llama-cpp-python's releases.

Fields are written ``name:letter`` with the letters of :mod:`struct`; a symbol that not every
release binds stands with the first and the last one that does.
"""

STRUCTS = ("llama_context_params", "llama_model_params")

_TYPES = {
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "L": ctypes.c_size_t,
    "f": ctypes.c_float,
    "?": ctypes.c_bool,
    "P": ctypes.c_void_p,
}


class Field(NamedTuple):
    """One field of a C struct: its place in bytes, its type as a letter of :mod:`struct`."""

    name: str
    offset: int
    size: int
    letter: str


class Layout(NamedTuple):
    """A C struct as somebody declares it."""

    fields: tuple[Field, ...]
    size: int


class Returned(NamedTuple):
    """A struct as the library returned it."""

    data: bytes
    """``ROOM`` bytes, those beyond the struct without meaning."""
    unwritten: frozenset[int]
    """Offsets that the library provably left alone."""
    reach: int | None
    """End of what it wrote, in bytes; ``None`` where that cannot be observed."""


FieldValue: TypeAlias = bool | int | float | str | None
"""What a field holds; ``None``: a null pointer."""


class LayoutOfReleases(TypedDict):
    """Releases that declare the same structs, each as ``name:letter`` of its fields."""

    releases: list[str]
    llama_context_params: str
    llama_model_params: str


class BoundSymbols(TypedDict):
    """Functions that releases bind: all of them, or those from a first to a last one."""

    every: str
    some: dict[str, tuple[str, str]]


class BindingsTable(TypedDict):
    """The table of releases."""

    layouts: list[LayoutOfReleases]
    symbols: BoundSymbols
    defaults: dict[str, dict[str, FieldValue]]
    """By struct, then by field."""


class Mismatch(NamedTuple):
    """A field that does not hold its default. ``found`` is ``"unwritten"`` for no value at all."""

    struct: str
    field: str
    found: FieldValue
    expected: FieldValue

    def __str__(self) -> str:
        return f"{self.struct}.{self.field} is {self.found} instead of {self.expected}"


def check(handle: ctypes.CDLL, bindings: ModuleType) -> list[Mismatch]:
    """What the library's default params show at other places than ``bindings`` declare.

    Args:
        handle: libllama.
        bindings: the module ``llama_cpp.llama_cpp``.

    Raises:
        AttributeError: the library has no ``llama_*_default_params``.
    """
    found: list[Mismatch] = []
    for name in STRUCTS:
        found += compare(name, layout_of(getattr(bindings, name)), default_params(handle, name))
    return found


def fitting_releases(handle: ctypes.CDLL) -> list[str]:
    """Releases of llama-cpp-python whose structs and symbols are those of the library, in order.

    Raises:
        AttributeError: the library has no ``llama_*_default_params``.
    """
    returned = {name: default_params(handle, name) for name in STRUCTS}
    return [
        release
        for layout in _table()["layouts"]
        if not any(
            compare(name, _parsed(str(layout.get(name))), returned[name]) for name in STRUCTS
        )
        for release in layout["releases"]
        if not missing_symbols(handle, release)
    ]


def missing_symbols(handle: ctypes.CDLL, release: str) -> list[str]:
    """Functions that a release binds when it is imported and that the library lacks.

    Empty for a release that is not in the table: nothing is known about it.
    """
    return [name for name in bound_symbols(release) if not hasattr(handle, name)]


def bound_symbols(release: str) -> list[str]:
    """All functions that a release looks up in the library when it is imported."""
    order = releases()
    if release not in order:
        return []
    at = order.index(release)
    symbols = _table()["symbols"]
    some = [
        name
        for name, (first, last) in symbols["some"].items()
        if order.index(first) <= at <= order.index(last)
    ]
    return [*symbols["every"].split(), *some]


def releases() -> list[str]:
    """The releases that the table knows, oldest first."""
    return [release for layout in _table()["layouts"] for release in layout["releases"]]


def complaint(
    library: Path,
    release: str,
    handle: ctypes.CDLL,
    bindings: ModuleType | None,
    error: Exception | None = None,
) -> str | None:
    """One sentence on why these bindings cannot drive this library, and which can.

    Args:
        library: libllama, as the user named it.
        release: the installed llama-cpp-python.
        bindings: its module, or ``None`` if importing it raised ``error``.

    Returns:
        ``None`` if they fit.
    """
    try:
        evidence = _evidence(handle, release, bindings, error)
        fits = fitting_releases(handle) if evidence else []
    except AttributeError as lacking:
        return f"{library} cannot be driven by llama-cpp-python: {lacking}."
    if not evidence:
        return None
    return f"llama-cpp-python {release} does not fit {library}: {evidence}. {_advice(fits)}"


def _evidence(
    handle: ctypes.CDLL, release: str, bindings: ModuleType | None, error: Exception | None
) -> str:
    if bindings is None:
        missing = missing_symbols(handle, release)
        return f"the library has no {_several(missing)}" if missing else str(error)
    return _several([str(mismatch) for mismatch in check(handle, bindings)])


def _several(items: Sequence[str], most: int = 3) -> str:
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


def _advice(fits: Sequence[str]) -> str:
    known = releases()
    if not fits:
        return (
            f"None of the releases {known[0]} to {known[-1]} fits; take bindings made for this "
            "build or a build made for these bindings."
        )
    others = f" ({', '.join(fits[:-1])} would do as well)" if len(fits) > 1 else ""
    return (
        f"Install bindings that fit: CMAKE_ARGS=-DLLAMA_BUILD=OFF pip install "
        f"--no-cache-dir 'llama-cpp-python=={fits[-1]}'{others}."
    )


def compare(name: str, layout: Layout, returned: Returned) -> list[Mismatch]:
    """Fields of ``layout`` that do not hold their known default in what the library returned.

    A field without a known default (of a release newer than the table) must only have been
    written.
    """
    defaults = _table()["defaults"][name]
    found: list[Mismatch] = []
    for field in layout.fields:
        expected = defaults.get(field.name)
        if not returned.unwritten.isdisjoint(range(field.offset, field.offset + field.size)):
            found.append(Mismatch(name, field.name, "unwritten", expected))
        elif field.name in defaults and (value := _value(returned.data, field)) != expected:
            found.append(Mismatch(name, field.name, value, expected))
    if returned.reach is not None and returned.reach > layout.size:
        found.append(Mismatch(name, "sizeof", returned.reach, layout.size))
    return found


def _value(data: bytes, field: Field) -> FieldValue:
    """The field's value: ``None`` for a null pointer; a bool only from a byte that is 0 or 1."""
    letter = "B" if field.letter == "?" else field.letter
    value: int | float = struct.unpack_from("@" + letter, data, field.offset)[0]
    if field.letter == "P":
        return value or None
    if field.letter == "?" and value in (0, 1):
        return bool(value)
    return value


def layout_of(structure: type[ctypes.Structure]) -> Layout:
    """Layout of a ctypes structure; callbacks and pointers of all kinds count as pointers."""
    fields = []
    for entry in structure._fields_:
        name, kind = entry[0], entry[1]
        place = getattr(structure, name)
        letter = getattr(kind, "_type_", "P")
        simple = isinstance(letter, str) and letter not in "PzZO"
        fields.append(Field(name, place.offset, place.size, letter if simple else "P"))
    return Layout(tuple(fields), ctypes.sizeof(structure))


def _parsed(text: str) -> Layout:
    pairs = [entry.split(":") for entry in text.split()]
    fields = [(name, _TYPES[letter]) for name, letter in pairs]
    return layout_of(type("Declared", (ctypes.Structure,), {"_fields_": fields}))


@cache
def _table() -> BindingsTable:
    table: BindingsTable = json.loads(TABLE.read_text(encoding="ascii"))
    return table


class _Room(ctypes.Structure):
    """Stands for a returned struct of any size: beyond 16 bytes all are returned the same way."""

    _fields_ = (("words", ctypes.c_uint64 * (ROOM // 8)),)


class _Paint(ctypes.Structure):
    _fields_ = (("words", ctypes.c_uint64 * (16 * ROOM // 8)),)


def default_params(handle: ctypes.CDLL, name: str) -> Returned:
    """What ``<name>`` holds by default (``llama_context_params``, ``llama_model_params``).

    ctypes receives a struct in stack memory that it does not clear, so what lay there shows
    through wherever the library did not write. The call is made over zeros and over ones: bytes
    that follow the paint are unwritten. Whether the paint holds, a function that writes nothing
    shows, before and after: the interpreter leaves traces in between (it frees what painted), whose
    depth depends on its heap. The order sees to it that a heap of which every second call finds
    another state tells both functions alike.

    Raises:
        AttributeError: the library does not have the function.
    """
    silent = ctypes.CDLL(None).getpid
    function = handle[name.replace("_params", "_default_params")]
    order = (silent, function, function, silent) * ROUNDS
    calls = [(called, *_over_paint(silent, called)) for called in order]
    shown = [(called, _unwritten(zeros, ones)) for called, zeros, ones in calls]
    visible = frozenset.intersection(*(paint for called, paint in shown if called is silent))
    unwritten = frozenset.union(*(paint for called, paint in shown if called is function))
    reach = None
    if visible.issuperset(range(OBSERVED)):
        reach = max(visible - unwritten, default=-1) + 1
    return Returned(calls[1][1], unwritten & visible, reach)


def _over_paint(
    silent: ctypes._NamedFuncPointer, function: ctypes._NamedFuncPointer
) -> tuple[bytes, bytes]:
    """What a function returns over a stack of zeros, and over a stack of ones.

    Nothing may stand between painting and calling: every other call leaves its own traces there.
    So both keep the interpreter's lock, and no other thread is let in between.
    """
    call = ctypes.PYFUNCTYPE(_Room)(ctypes.cast(function, ctypes.c_void_p).value or 0)
    paint = ctypes.PYFUNCTYPE(None, _Paint)(ctypes.cast(silent, ctypes.c_void_p).value or 0)
    zeros, ones = _Paint(), _Paint.from_buffer_copy(b"\xff" * ctypes.sizeof(_Paint))
    paint(zeros)
    over_zeros = call()
    paint(ones)
    over_ones = call()
    return bytes(over_zeros), bytes(over_ones)


def _unwritten(zeros: bytes, ones: bytes) -> frozenset[int]:
    return frozenset(at for at in range(ROOM) if (zeros[at], ones[at]) == (0x00, 0xFF))


def mixture(library: Path, mapped: Iterable[Path]) -> str | None:
    """One sentence on why the mapped libraries are not of one build; ``None`` if nothing says so.

    Two things prove a mixture: a library that was mapped from elsewhere than the directory in use
    (links followed), and source paths that the compiler left in the files and that lie in
    different trees. Version numbers and times prove nothing: each part of a build has its own.

    Args:
        library: libllama, as it was found.
        mapped: the llama and ggml libraries that this process has mapped.
    """
    files = sorted(mapped)
    own = {path.resolve() for path in library.parent.iterdir()}
    real = library.resolve().parent
    strays = [file for file in files if file.resolve() not in own and file.parent != real]
    if strays:
        return (
            f"{library} was loaded together with {_several([str(file) for file in strays])}, "
            "which is not of its directory; put the libraries of one build together, and check "
            "LD_LIBRARY_PATH or DYLD_LIBRARY_PATH."
        )
    trees: dict[str, list[str]] = {}
    for file in files:
        if tree := source_tree(file):
            trees.setdefault(tree, []).append(file.name)
    if len(trees) > 1:
        listed = "; ".join(f"{_several(names)} from {tree}" for tree, names in trees.items())
        return (
            f"{library.parent} mixes libraries of different builds ({listed}); "
            "point --kv-lib at the libraries of one build."
        )
    return None


def load_complaint(library: Path, error: OSError) -> str:
    """One sentence on why the system's loader does not load libllama.

    Args:
        library: libllama, as it was found.
        error: what ``ctypes.CDLL(library)`` raised.
    """
    files = {path.resolve() for path in library.parent.iterdir() if _PART.match(path.name)}
    if mixed := mixture(library, files):
        return f"{library} does not load ({error}): {mixed}"
    return (
        f"{library} does not load: {error}. Keep all libraries of one build in its directory, and "
        "check LD_LIBRARY_PATH or DYLD_LIBRARY_PATH."
    )


_PART = re.compile(r"lib(ggml|llama)[^/]*\.(so|dylib)")
_SOURCE = {
    "ggml": (b"/ggml/src/", re.compile(rb"(/.*)/ggml/src/(?:[^/]+/)?[^/]+\.(?:c|cpp|h|m)$")),
    "llama": (b"/src/llama", re.compile(rb"(/.*)/src/llama[^/]*\.(?:cpp|h)$")),
}


def source_tree(file: Path) -> str | None:
    """Root of the sources that a library was compiled from, as its assertions name them.

    ``None`` for a library without such paths (a build with mapped prefixes), which proves nothing.
    """
    if not (match := re.match(r"lib(ggml|llama)[^/]*$", file.name)) or not file.stat().st_size:
        return None
    needle, pattern = _SOURCE[match[1]]
    with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as content:
        at = content.find(needle)
        while at >= 0:
            start, stop = content.rfind(b"\0", 0, at) + 1, content.find(b"\0", at)
            if found := pattern.match(content[start:stop]):
                return found[1].decode(errors="replace")
            at = content.find(needle, stop if stop > at else at + 1)
    return None
