"""How the depths of a pair can be timed, by what fits into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import msgspec

from pytest_kvquant import format
from pytest_kvquant.engine.options import flag, whole
from pytest_kvquant.errors import CellOutOfMemory
from pytest_kvquant.inputs import geometry
from pytest_kvquant.machine import memory
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.speed.plan import SpeedPlan
from pytest_kvquant.speed.streams import SpeedSetup, sides

HEADROOM = 0.9
"""Share of the free memory that caches may take."""

TOGETHER = 8
"""Pairs that are timed in one process at most: a round must stay short beside a machine's drift."""

Method = Literal["interleaved", "bracketed", "alone"]

METHODS: tuple[Method, ...] = ("interleaved", "bracketed", "alone")
"""In the order of what they need: both caches at once, either of them, the cell's only."""


class Way(NamedTuple):
    """Depths next to each other that are timed alike."""

    method: Method
    depths: tuple[int, ...]
    reason: str
    """Why not by the method before this one."""


class Ways(NamedTuple):
    """How all depths of a pair are timed."""

    visited: list[Way]
    left: tuple[int, ...]
    """Depths at which not even the cell fits."""
    reason: str
    """Why they are left."""


def find_ways(pair: Pair, plan: SpeedPlan, setup: SpeedSetup) -> Ways:
    """Ways to time all depths, shallow ones first.

    Raises:
        CellOutOfMemory: the cell does not fit even at the first of them.
    """
    known = list(_methods(pair, plan, setup))
    visited = [
        Way(method, tuple(depth for depth, _, _ in alike), alike[0][2])
        for method, alike in ((one, list(found)) for one, found in groupby(known, _method))
        if method
    ]
    left = [(depth, reason) for depth, method, reason in known if not method]
    if not visited:
        raise CellOutOfMemory(f"{left[0][1]}; give shallower --kv-depths.")
    return Ways(visited, tuple(depth for depth, _ in left), left[0][1] if left else "")


def beside(pair: Pair, others: Sequence[Pair], plan: SpeedPlan, setup: SpeedSetup) -> list[Pair]:
    """Those of ``others`` that are timed in one process with a pair, against one f16.

    The first ones, as many as fit into memory; none where cells are held against another build.
    """
    if setup.other is not None:
        return []
    tokens = plan.context(max(plan.depths))
    left = room_beside_weights(setup) - sum(_need(one, setup, tokens) for one in (REFERENCE, pair))
    found: list[Pair] = []
    for one in others[: TOGETHER - 1]:
        left -= _need(one, setup, tokens)
        if left < 0:
            break
        found.append(one)
    return found


def _need(pair: Pair, setup: SpeedSetup, tokens: int) -> int:
    """Bytes of a cache of so many tokens, as often as it takes the memory."""
    times = copies(setup)
    if not flag(setup.options, "kv-unified", False):
        times *= max(1, whole(setup.options, "parallel"))  # room for each sequence
    return times * cache_need(pair, setup).least(tokens)


def cache_need(pair: Pair, setup: SpeedSetup) -> geometry.Need:
    """What the cache of one sequence takes under the options of the run."""
    types = msgspec.to_builtins(setup.library.types)
    full = flag(setup.options, "swa-full", False)
    return geometry.need(setup.model, pair, types, ubatch=setup.ubatch, swa_full=full)


def free_memory(setup: SpeedSetup) -> int:
    """Bytes that caches may take: the limit, else what the device that holds them has free."""
    if setup.memory_limit is not None:
        return setup.memory_limit
    gpus = setup.holding
    if not gpus:
        return int(HEADROOM * memory.available())
    free = sum(device.free for device in gpus)
    if any(device.unified for device in gpus):
        # A device that shares the host's memory counts what its own process took, and no other's.
        free = min(free, memory.available())
    return int(HEADROOM * free)


def room_beside_weights(setup: SpeedSetup) -> int:
    """Bytes that caches may take beside the model's weights.

    The CPU's weights are mapped from their file and given up where memory is needed; those of a
    GPU are in its memory, which was free when nothing was loaded yet.
    """
    room = free_memory(setup)
    if setup.memory_limit is None and setup.holding:
        return max(0, room - setup.model.size)
    return room


def most_room(setup: SpeedSetup) -> int:
    """Bytes that caches might take at best: where a search for the largest context begins.

    Nothing is held back of a GPU's own memory: an attempt that does not fit there ends, and harms
    nobody. A host begins to swap.
    """
    if setup.memory_limit is None and has_own_memory(setup):
        return max(0, sum(device.free for device in setup.holding) - setup.model.size)
    return room_beside_weights(setup)


def has_own_memory(setup: SpeedSetup) -> bool:
    """Whether caches lie in memory that is not the host's."""
    return bool(setup.holding) and not any(device.unified for device in setup.holding)


def copies(setup: SpeedSetup) -> int:
    """How many times a cache takes host memory while it is timed.

    Models with windows or recurrent states go back to a depth by a saved state, a copy in the
    host's memory: on a device that shares it, that comes beside the cache.
    """
    unified = any(one.unified for one in setup.library.gpus_in_use(setup.gpu_layers))
    model = setup.model
    restores = model.window > 0 or 0 in model.n_head_kv
    return 2 if unified and restores else 1


def _method(known: tuple[int, Method | None, str]) -> Method | None:
    return known[1]


def _methods(
    pair: Pair, plan: SpeedPlan, setup: SpeedSetup
) -> Iterator[tuple[int, Method | None, str]]:
    """Each depth, how it can be timed (``None``: not at all), and why not better."""
    own, reference = sides(pair, setup)
    room = room_beside_weights(setup)
    for depth in plan.depths:
        tokens = plan.context(depth)
        cell, f16 = (_need(side.pair, setup, tokens) for side in (own, reference))
        needs: list[tuple[Method | None, int, str]] = [
            (None, cell, f"A cache of {tokens:,} tokens needs"),
            ("alone", f16, f"a cache of {tokens:,} tokens of {reference.name} needs"),
            ("bracketed", cell + f16, f"two caches of {tokens:,} tokens need"),
        ]
        yield next(
            (
                (depth, method, f"{text} {format.size(need)}, {format.size(room)} may be used")
                for method, need, text in needs
                if need > room
            ),
            (depth, "interleaved", ""),
        )
