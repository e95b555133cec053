"""Cache-type pairs: parsing, the matrix of a run, stable order and ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from pytest_kvquant.errors import SettingsError


class Pair(NamedTuple):
    """One cell of the matrix: K type, V type, both by ggml name."""

    k: str
    v: str

    def __str__(self) -> str:
        return f"{self.k}/{self.v}"

    def matches(self, pattern: str) -> bool:
        """Whether ``pattern`` (``q8_0/*``, ``*/turbo?``, ``f16/f16``) names this pair."""
        wanted = Pair.parse(pattern)
        return fnmatchcase(self.k, wanted.k) and fnmatchcase(self.v, wanted.v)

    @classmethod
    def parse(cls, text: str) -> Pair:
        """Read ``K/V``.

        Raises:
            SettingsError: not two type names with a slash between them.
        """
        k, slash, v = text.partition("/")
        if not (k.strip() and slash and v.strip()) or "/" in v:
            raise SettingsError(
                f"'{text}' is not a pair of cache types: write K/V, for example q8_0/q4_0."
            )
        return cls(k.strip(), v.strip())


REFERENCE = Pair("f16", "f16")
"""The cell that every other one is compared with."""

DEFAULT_TYPES = ("f16", "q8_0", "q5_1", "q4_0")
"""The matrix when nothing is asked for: cache types every llama.cpp build has."""


def plan_pairs(types: Sequence[str], pairs: Sequence[str], skip: Sequence[str]) -> list[Pair]:
    """The cells of a run, in a stable order, ``f16/f16`` first.

    ``pairs`` replaces the product of ``types``; ``skip`` takes cells away by pattern; the
    reference is always a cell, because it is the self-check of the run. A skip pattern is written
    for a whole matrix: beside ``pairs`` it may match nothing.

    Raises:
        SettingsError: a malformed pair, or a skip pattern that matches nothing of the product.
    """
    wanted = [Pair.parse(pair) for pair in pairs] or list(_product(types or DEFAULT_TYPES))
    for pattern in skip:
        if not pairs and not any(pair.matches(pattern) for pair in wanted):
            raise SettingsError(f"--kv-skip {pattern} matches no cell of this run; remove it.")
    kept = [pair for pair in wanted if not any(pair.matches(pattern) for pattern in skip)]
    return list(dict.fromkeys([REFERENCE, *kept]))


def take_shard(pairs: Sequence[Pair], shard: str | None) -> list[Pair]:
    """The part of a run's cells that one of several runs measures, in the run's order.

    Each shard has ``f16/f16``, its own self-check, and a share of the others, dealt by expected
    cost: the dearest first, each to the shard that has least. The same cells give the same shards.

    Args:
        shard: ``i/n``, from ``1/n`` to ``n/n``; ``None`` takes all.

    Raises:
        SettingsError: not that.
    """
    if shard is None:
        return list(pairs)
    words = shard.split("/")
    number, count = (int(word) if word.isdecimal() else 0 for word in (words * 2)[:2])
    if len(words) != 2 or not 1 <= number <= count:
        raise SettingsError(f"--kv-shard {shard}: write i/n, from 1/n to n/n; for example 2/4.")
    load = [0] * count
    own = {REFERENCE}
    for pair in sorted((pair for pair in pairs if pair != REFERENCE), key=expected_cost)[::-1]:
        lightest = load.index(min(load))
        load[lightest] += expected_cost(pair)
        if lightest == number - 1:
            own.add(pair)
    return [pair for pair in pairs if pair in own]


FLOATS = ("f32", "f16", "bf16")


def expected_cost(pair: Pair) -> int:
    """What a cell will cost beside others, before anything is known of it.

    Kernels are written for equal types first; K and V of two types, and most of all a float type
    beside a quantized one, are where a build leaves its fast path.
    """
    if pair.k == pair.v:
        return 2
    return 4 if (pair.k in FLOATS) != (pair.v in FLOATS) else 3


def _product(types: Iterable[str]) -> Iterable[Pair]:
    names = list(dict.fromkeys(types))
    return (Pair(k, v) for k in names for v in names)
