"""Which device a run measures on: one that ggml names, or some cores of the CPU."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import NamedTuple

from pytest_kvquant.errors import SettingsError

CPU = "CPU"


class DeviceChoice(NamedTuple):
    """One word of ``--kv-devices``."""

    name: str
    """As ggml names it: ``CUDA0``, ``MTL0``, ``CPU``."""
    cores: frozenset[int] = frozenset()
    """Of the CPU; empty: all."""

    def shares(self, other: DeviceChoice) -> bool:
        """Whether work on one would disturb work on the other."""
        apart = self.cores and other.cores and not self.cores & other.cores
        return self.name == other.name and not apart


def parse(word: str) -> DeviceChoice:
    """A device by its name; ``CPU:0-3`` is the CPU's cores 0 to 3.

    Raises:
        SettingsError: cores that are no range.
    """
    name, colon, cores = word.partition(":")
    if name != CPU or not colon:
        return DeviceChoice(word)
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", cores)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if first > last:
        raise SettingsError(
            f"--kv-devices {word}: cores are one number or a range, as CPU:0 or CPU:0-3."
        )
    return DeviceChoice(name, frozenset(range(first, last + 1)))


def share_out(words: Sequence[str], workers: int) -> list[str]:
    """The devices of so many pytest-xdist workers, one each.

    Raises:
        SettingsError: there are fewer devices than workers, or two of them are one.
    """
    if workers > len(words):
        given = f"--kv-devices names {len(words)}" if words else "--kv-devices is not given"
        raise SettingsError(
            f"-n {workers} needs {workers} devices, one for each pytest process, and {given}: "
            "cells that share a device would disturb each other. Lower -n, or name as many "
            "(kvquant doctor lists them; CPU:0-3,CPU:4-7 are two halves of a CPU)."
        )
    chosen = list(words[:workers])
    for one, two in combinations(chosen, 2):
        if parse(one).shares(parse(two)):
            raise SettingsError(
                f"--kv-devices: {one} and {two} share a device; cells on them would disturb each "
                "other."
            )
    return chosen


@contextmanager
def visiting(word: str) -> Iterator[None]:
    """Occupy a device for the length of a block; an empty word is none.

    Raises:
        SettingsError: as :func:`occupy`.
    """
    kept_to, keep = (getattr(os, f"sched_{verb}affinity", None) for verb in ("get", "set"))
    before = kept_to(0) if word and kept_to is not None else None
    try:
        if word:
            occupy(word)
        yield
    finally:
        if before is not None and keep is not None:
            keep(0, before)


def occupy(word: str) -> None:
    """Keep this process, and workers it starts, to the cores that a device names, if it does.

    Raises:
        SettingsError: this machine does not have them, or its system cannot do that.
    """
    cores = parse(word).cores
    if not cores:
        return
    keep, kept_to = (getattr(os, f"sched_{verb}affinity", None) for verb in ("set", "get"))
    if keep is None or kept_to is None:
        raise SettingsError(f"--kv-devices {word}: this system cannot keep a process to cores.")
    try:
        keep(0, cores)
        kept = kept_to(0) == cores
    except OSError:
        kept = False
    if not kept:
        raise SettingsError(f"--kv-devices {word}: this process may not use all of these cores.")
