"""What ``[expect]`` declares of a pair, in one meaning for quality, memory and speed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from pytest_kvquant.config.overrides import MIXED, Expect
from pytest_kvquant.config.packaged import read_table
from pytest_kvquant.matrix import Pair

PACKAGED = Path(__file__).parents[1] / "data" / "expect.toml"


def with_packaged(expect: Mapping[str, Expect], *, embedded: bool) -> dict[str, Expect]:
    """What is known of the embedded model's pairs, overlaid by the configuration."""
    known = read_table(PACKAGED)["embedded"] if embedded else {}
    return {**msgspec.convert(known, dict[str, Expect]), **expect}


def off_device(pair: Pair, expect: Mapping[str, Expect], device: str) -> bool:
    """Whether a pair is declared to leave its attention to the CPU where ``device`` computes.

    Later patterns win.
    """
    found = [
        entry.off_device
        for pattern, entry in expect.items()
        if entry.off_device is not None and pair.matches(pattern)
    ]
    if not found or device.startswith("CPU"):
        return False
    last = found[-1]
    return fnmatchcase(device, last) if isinstance(last, str) else last


def substitutes(expect: Mapping[str, Expect]) -> dict[str, str]:
    """Declared substitutions: a pattern of pairs, the pair held instead or :data:`MIXED`."""
    return {
        pattern: entry.substituted
        for pattern, entry in expect.items()
        if entry.substituted is not None
    }


def substitute(pair: Pair, declared: Mapping[str, str]) -> str | None:
    """The pair that the cache of ``pair`` is declared to hold instead, or :data:`MIXED`.

    Later patterns win. One that matches its own substitute, as ``*/turbo3`` does ``q8_0/turbo3``,
    declares nothing of that one.

    Args:
        declared: as from :func:`substitutes`.
    """
    found = [other for pattern, other in declared.items() if pair.matches(pattern)]
    return found[-1] if found and found[-1] != str(pair) else None


def declared_failures(pair: Pair, device: str, expect: Mapping[str, Expect]) -> frozenset[str]:
    """Checks and operations that ``[expect]`` declares to fail for a pair on a device."""
    return frozenset(
        name
        for pattern, entry in expect.items()
        if pair.matches(pattern.partition("@")[0].strip())
        and fnmatchcase(device, entry.device or "*")
        for name in entry.fails
    )


def failures_on_member(
    pair: Pair, device: str, expect: Mapping[str, Expect], member: str
) -> frozenset[str]:
    """What is declared to fail for a pair on a member of the zoo, under ``zoo``."""
    return frozenset(
        name
        for pattern, entry in expect.items()
        if pair.matches(pattern) and fnmatchcase(device, entry.device or "*")
        for members, names in entry.zoo.items()
        if fnmatchcase(member, members)
        for name in names
    )


def held_as(
    layers: Iterable[tuple[str, str | None]], pair: Pair, declared: str | None
) -> dict[Pair, None]:
    """The different pairs that the layers of a cache hold, in their order.

    Args:
        layers: K and V type of each; where the architecture stores no V, it counts as the wanted.
        declared: what :func:`substitute` said.
    """
    wanted = Pair.parse(declared) if declared not in (None, MIXED) else pair
    return dict.fromkeys(Pair(k, wanted.v if v is None else v) for k, v in layers)
