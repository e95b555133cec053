"""Whether the census agrees with what the model's header and the types asked for would have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from pytest_kvquant.engine.census import Census, CensusLayer
from pytest_kvquant.inputs.geometry import Expectation, LayerShape, Types, row_bytes

PADDINGS = (32, 64, 128, 256, 512)
"""Multiples that head dimensions have been padded to."""


class Explanation(NamedTuple):
    """How a census relates to what was expected."""

    kind: Literal["agree", "padded", "substituted", "differs", "unreadable"]
    text: str


class _Found(NamedTuple):
    """One side (K or V) of one layer in the census, with what it should be."""

    side: str
    place: str
    number: int
    asked: str
    type: str
    row: int
    heads: int
    dim: int


def explain(census: Census, expectation: Expectation, types: Types) -> Explanation:
    """Say in words how the cache differs from what was asked for, and why, if that shows.

    Returns:
        The gravest kind that applies: ``unreadable``, ``substituted`` (another type than asked
        for), ``differs`` (a size without explanation), ``padded`` (each head rounded up),
        ``agree``.
    """
    if census.problem is not None:
        return Explanation("unreadable", census.problem)
    layers = [
        (cache.kind, place, layer)
        for cache in census.caches
        for place, layer in enumerate(cache.layers)
        if cache.kind != "other"
    ]
    shapes = _matched(census, expectation)
    sides = list(_sides(layers, shapes, expectation))
    substituted = _grouped(sides, _substitution)
    problems = _grouped(sides, lambda found: _misfit(found, types))
    padded = _grouped(sides, lambda found: _padding(found, types))
    if len(layers) != len(expectation.layers):
        problems.insert(
            0,
            f"the cache has {_count(len(layers), 'layer')}, the model's header describes "
            f"{len(expectation.layers)} with KV heads",
        )
    lines = [*substituted, *problems, *padded]
    kind: Literal["agree", "padded", "substituted", "differs"] = "agree"
    if substituted:
        kind = "substituted"
    elif problems:
        kind = "differs"
    elif padded:
        kind = "padded"
    agreed = f"{expectation.bytes_per_token:,} bytes per token, as the model's geometry says"
    return Explanation(kind, "; ".join(lines) or agreed)


def held_bytes(census: Census, expectation: Expectation, types: Types) -> int | None:
    """Bytes per token that the types which the layers really hold should take.

    ``None`` where it is not known which layer of the model is which of the census.
    """
    layers = [layer for cache in census.caches if cache.kind != "other" for layer in cache.layers]
    total = 0
    for layer, shape in zip(layers, _matched(census, expectation), strict=True):
        if shape is None:
            return None
        total += row_bytes(types[layer.k_type], shape.heads, expectation.head_dim_k)
        if layer.v_type is not None:
            total += row_bytes(types[layer.v_type], shape.heads, expectation.head_dim_v)
    return total


def _matched(census: Census, expectation: Expectation) -> list[LayerShape | None]:
    """The model's layer for each one of the census, ``None`` where that is not known.

    A cache lists its layers in the model's order but does not number them.
    """
    counts = [len(cache.layers) for cache in census.caches if cache.kind != "other"]
    if sum(counts) != len(expectation.layers):
        return [None] * sum(counts)
    if len(counts) < 2:
        return list(expectation.layers)
    base = [layer for layer in expectation.layers if not layer.windowed]
    window = [layer for layer in expectation.layers if layer.windowed]
    if [len(base), len(window)] == counts:
        return [*base, *window]
    if len({layer.heads for layer in expectation.layers}) == 1:
        return [layer._replace(number=-1) for layer in expectation.layers]
    return [None] * sum(counts)


def _sides(
    layers: Sequence[tuple[str, int, CensusLayer]],
    shapes: Sequence[LayerShape | None],
    expectation: Expectation,
) -> Iterator[_Found]:
    pair = expectation.pair
    for (kind, place, layer), shape in zip(layers, shapes, strict=True):
        heads = shape.heads if shape else 0
        known = shape is not None and shape.number >= 0
        at = ("layer", shape.number) if shape and known else (f"{kind} layer", place)
        dims = expectation.head_dim_k, expectation.head_dim_v
        yield _Found("K", *at, pair.k, layer.k_type, layer.k_row, heads, dims[0])
        if layer.v_type is not None:
            yield _Found("V", *at, pair.v, layer.v_type, layer.v_row, heads, dims[1])


def _substitution(found: _Found) -> str | None:
    if found.type == found.asked:
        return None
    return f"{found.side} is {found.type} instead of {found.asked}"


def _misfit(found: _Found, types: Types) -> str | None:
    if not found.heads or _padded_to(found, types) is not None:
        return None
    return (
        f"a {found.side} row has {found.row} bytes of {found.type}, which "
        f"{_count(found.heads, 'head')} of {found.dim} elements cannot fill"
    )


def _padding(found: _Found, types: Types) -> str | None:
    multiple = _padded_to(found, types) if found.heads else None
    if not multiple:
        return None
    stored = -(-found.dim // multiple) * multiple
    return f"each {found.side} head is padded from {found.dim} to {stored} elements"


def _padded_to(found: _Found, types: Types) -> int | None:
    """0: not padded; otherwise the multiple; ``None``: no multiple explains the row."""
    entry = types[found.type]
    elements = found.row // int(entry["bytes"]) * int(entry["block"])
    for multiple in (1, *PADDINGS):
        if elements == found.heads * (-(-found.dim // multiple) * multiple):
            return 0 if multiple == 1 else multiple
    return None


def _grouped(sides: Sequence[_Found], say: Callable[[_Found], str | None]) -> list[str]:
    """One line per thing to say, with the layers that it holds for."""
    said: dict[str, dict[str, list[int]]] = {}
    for found in sides:
        if text := say(found):
            said.setdefault(text, {}).setdefault(found.place, []).append(found.number)
    return [
        f"{text} on " + " and ".join(_places(place, at) for place, at in places.items())
        for text, places in said.items()
    ]


def _places(place: str, numbers: Sequence[int]) -> str:
    """``layer 3``, ``layers 0-2, 7``, ``window layers 0-5``.

    >>> _places("layer", [0, 1, 2, 7])
    'layers 0-2, 7'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    listed = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"{place}{'s' if len(numbers) > 1 else ''} {listed}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
