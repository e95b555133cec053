"""Whether the census agrees with what the geometry and the types asked for would have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from pytest_kvquant.inputs.caches import CachedLayer, CacheShape
from pytest_kvquant.inputs.geometry import Expectation, Types, expect, expect_of, row_bytes

if TYPE_CHECKING:
    from pytest_kvquant.engine.census_record import Cache, Census, CensusLayer
    from pytest_kvquant.inputs.model import Model
    from pytest_kvquant.matrix import Pair

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
    """0: not known, and ``dim`` is the whole row; -1: nothing is known of the layer."""
    dim: int


def expected_by(
    model: Model, pair: Pair, control: Census, control_pair: Pair, types: Types
) -> Expectation:
    """What the cache of ``pair`` should be, once it is known what the control's is.

    Where the header does not explain the control, it is the header that is not understood: then
    the control's own layers are the geometry, and types only scale it.

    Args:
        control: the census of ``control_pair``, f16/f16 as a rule.
    """
    expectation = expect(model, pair, types)
    if control.problem is not None:
        return expectation
    told = explain(control, expect(model, control_pair, types), types).kind
    if told != "differs":
        return expectation
    found = expect_of(tuple(_shown(cache, types) for cache in control.caches), pair, types)
    return found._replace(source="f16", described=expectation.bytes_per_token)


def _shown(cache: Cache, types: Types) -> CacheShape:
    """A cache with the elements of its rows; which head is where does not show."""

    def elements(name: str | None, row: int) -> int:
        return row // types[name]["bytes"] * types[name]["block"] if name else 0

    return CacheShape(
        "window" if cache.kind == "window" else "attention",
        tuple(
            CachedLayer(-1, 0, elements(one.k_type, one.k_row), elements(one.v_type, one.v_row))
            for one in cache.layers
        ),
    )


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
            f"{len(expectation.layers)}",
        )
    lines = [*substituted, *problems, *padded]
    kind: Literal["agree", "padded", "substituted", "differs"] = "agree"
    if substituted:
        kind = "substituted"
    elif problems:
        kind = "differs"
    elif padded:
        kind = "padded"
    return Explanation(kind, "; ".join(lines) or _agreed(expectation))


def _agreed(expectation: Expectation) -> str:
    said = f"{expectation.bytes_per_token:,} bytes per token"
    if expectation.source == "header":
        return f"{said}, as the model's geometry says"
    return (
        f"{said}; the geometry of this model is not known (its header reads as "
        f"{expectation.described:,} in f16's place): taken from f16"
    )


def held_bytes(census: Census, expectation: Expectation, types: Types) -> int | None:
    """Bytes per token that the types which the layers really hold should take.

    ``None`` where it is not known which layer of the model is which of the census.
    """
    layers = [layer for cache in census.caches for layer in cache.layers]
    total = 0
    for layer, shape in zip(layers, _matched(census, expectation), strict=True):
        if shape is None:
            return None
        total += row_bytes(types[layer.k_type], shape.heads, shape.dim_k)
        if layer.v_type is not None:
            total += row_bytes(types[layer.v_type], shape.heads, shape.dim_v)
    return total


def _matched(census: Census, expectation: Expectation) -> list[CachedLayer | None]:
    """The model's layer for each one of the census, ``None`` where that is not known.

    A cache lists its layers in the model's order but does not number them.
    """
    found = [len(cache.layers) for cache in census.caches if cache.layers]
    expected = [len(shape.layers) for shape in expectation.caches if shape.layers]
    layers = expectation.layers
    if sum(found) != len(layers):
        return [None] * sum(found)
    if found == expected:
        return list(layers)
    if len({(layer.heads, layer.dim_k, layer.dim_v) for layer in layers}) == 1:
        return [CachedLayer(-1, one.heads, one.dim_k, one.dim_v) for one in layers]
    return [None] * sum(found)


def _sides(
    layers: Sequence[tuple[str, int, CensusLayer]],
    shapes: Sequence[CachedLayer | None],
    expectation: Expectation,
) -> Iterator[_Found]:
    pair = expectation.pair
    for (kind, place, layer), shape in zip(layers, shapes, strict=True):
        heads, dim_k, dim_v = (shape.heads, shape.dim_k, shape.dim_v) if shape else (-1, 0, 0)
        known = shape is not None and shape.number >= 0
        at = ("layer", shape.number) if shape and known else (f"{kind} layer", place)
        yield _Found("K", *at, pair.k, layer.k_type, layer.k_row, heads, dim_k)
        if layer.v_type is not None or dim_v:
            yield _Found("V", *at, pair.v, layer.v_type or "", layer.v_row, heads, dim_v)


def _substitution(found: _Found) -> str | None:
    if found.type == found.asked or not found.type:
        return None
    return f"{found.side} is {found.type} instead of {found.asked}"


def _misfit(found: _Found, types: Types) -> str | None:
    if not found.type:
        return f"there is no {found.side}, of which the model's header describes {found.dim}"
    if found.heads < 0 or _padded_to(found, types) is not None:
        return None
    if not found.dim:
        return f"there is a {found.side}, of which the model's header knows nothing"
    heads = _count(found.heads, "head") + " of " if found.heads else ""
    return (
        f"a {found.side} row has {found.row} bytes of {found.type}, which "
        f"{heads}{found.dim} elements cannot fill"
    )


def _padding(found: _Found, types: Types) -> str | None:
    multiple = _padded_to(found, types) if found.heads >= 0 and found.type else None
    if not multiple:
        return None
    if not found.heads:
        return f"each {found.side} head is padded to a multiple of {multiple} elements"
    stored = -(-found.dim // multiple) * multiple
    return f"each {found.side} head is padded from {found.dim} to {stored} elements"


def _padded_to(found: _Found, types: Types) -> int | None:
    """0: not padded; otherwise the multiple; ``None``: no multiple explains the row."""
    if not found.dim:
        return None
    entry = types[found.type]
    elements = found.row // entry["bytes"] * entry["block"]
    if elements == (found.heads or 1) * found.dim:
        return 0
    possible = (
        [(found.heads, found.dim)]
        if found.heads
        else [(n, found.dim // n) for n in range(1, found.dim + 1) if found.dim % n == 0]
    )
    for heads, dim in possible:
        for multiple in PADDINGS:
            if (found.heads or multiple < 2 * dim) and elements == heads * (
                -(-dim // multiple) * multiple
            ):
                return multiple
    return None


def _grouped(sides: Sequence[_Found], say: Callable[[_Found], str | None]) -> list[str]:
    """One line per thing to say, with the layers that it holds for."""
    said: dict[str, dict[str, list[int]]] = {}
    for found in sides:
        if text := say(found):
            said.setdefault(text, {}).setdefault(found.place, []).append(found.number)
    return [
        f"{text} on " + " and ".join(numbered(place, at) for place, at in places.items())
        for text, places in said.items()
    ]


def numbered(place: str, numbers: Sequence[int]) -> str:
    """Things by their numbers: ``layer 3``, ``layers 0-2, 7``, ``window layers 0-5``.

    >>> numbered("layer", [0, 1, 2, 7])
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
