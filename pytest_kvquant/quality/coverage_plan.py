"""How much is examined: which depths, batch sizes, layers and scenarios belong to a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pytest_kvquant.matrix import REFERENCE, Pair

LADDER = (1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 32, 33, 64)
"""Query tokens: kernels change at powers of two, at 8 and at 32; speculative decoding and parallel
slots use all of them."""

MINIMAL_LADDER = (1, 2, 3, 8, 33)
FEW = (1, 4, 33)
LEVELS = ("minimal", "standard", "full")


class Level(NamedTuple):
    """What one level examines."""

    name: str
    ascends: tuple[tuple[int, tuple[int, ...]], ...]
    """Depths, and the batch sizes there."""
    layers: int
    """Layers whose nodes are judged."""
    scenarios: bool
    left_out: tuple[str, ...]
    """In words."""


def level(name: str, *, cells: int, ubatch: int, depths: tuple[int, ...] = ()) -> Level:
    """The level of this name for contexts of so many cells.

    Args:
        depths: further depths that the run visits.
    """
    near = min(250, max(0, cells - 100))
    if name == "minimal":
        return Level(
            name, ((near, MINIMAL_LADDER),), 2, scenarios=False,
            left_out=(
                f"depths but {near}", "batch sizes but " + ", ".join(map(str, MINIMAL_LADDER)),
                "cache operations and slots",
            ),
        )  # fmt: skip
    whole = (*LADDER, min(ubatch, cells))
    end = max(0, cells - 65)
    if name == "standard":
        ascends = {0: (1, min(ubatch, cells)), near: LADDER, end: FEW}
        left = ("further layers and depths", "scenarios of the level full")
        return Level(name, tuple(sorted(ascends.items())), 2, scenarios=True, left_out=left)
    everywhere = {0: whole, near: LADDER, cells // 2: LADDER, end: LADDER}
    everywhere |= {depth: LADDER for depth in depths if 0 < depth <= end}
    deeper = tuple(f"depth {depth:,}" for depth in depths if depth > end)
    return Level(name, tuple(sorted(everywhere.items())), 4, scenarios=True, left_out=deeper)


ON_EVERY_PAIR = frozenset({"shift_head"})
"""Scenarios that are not shared out: a crash of some pairs alone has been seen there."""


def shared_out(names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, frozenset[Pair]]:
    """Who does what where not all is done on every pair.

    Each K type and each V type does everything at least once, with changing partners; f16/f16 does
    all, for the others are compared with it.

    Args:
        names: of scenarios, or of members of the zoo.
        pairs: of the run, in its order.
    """
    found = {}
    for number, name in enumerate(names):
        at = number % len(pairs) if pairs else 0
        turned = [*pairs[at:], *pairs[:at]]
        taken = {pair for pair in turned if pair == REFERENCE or name in ON_EVERY_PAIR}
        waiting = [{pair.k for pair in pairs}, {pair.v for pair in pairs}]
        for wanted in (2, 1):  # first those that bring two types at once
            for pair in turned:
                news = [kind in left for kind, left in zip(pair, waiting, strict=True)]
                if sum(news) >= wanted:
                    taken.add(pair)
                    for kind, left in zip(pair, waiting, strict=True):
                        left.discard(kind)
        found[name] = frozenset(taken)
    return found


def sampled(
    layers: Sequence[int],
    count: int,
    seed: int,
    *,
    windowed: Sequence[bool] = (),
    sharing: Sequence[int] = (),
) -> tuple[int, ...]:
    """The first and the last layer, others by the seed, and at least one of each kind.

    Args:
        layers: with a cache of their own.
        count: of these, about.
        windowed: by layer; empty: no layer has a window.
        sharing: layers that read the cache of an earlier one: the last of its kind, which is
            among those that are chosen.
    """
    rng = np.random.default_rng(seed)
    inner = rng.permutation(layers[1:-1])[: max(0, count - 2)].tolist()
    chosen = {*layers[:1], *layers[-1:], *(int(one) for one in inner)}

    def last_of_each_kind(some: Sequence[int]) -> set[int]:
        return set({one < len(windowed) and windowed[one]: one for one in some}.values())

    return tuple(sorted({*chosen, *last_of_each_kind(layers), *last_of_each_kind(sharing)}))
