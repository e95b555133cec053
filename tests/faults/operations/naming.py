"""Whether a diagnosis names what was planted."""

from __future__ import annotations

from typing import Literal

from faults.operations.catalogue import Planted
from pytest_kvquant.checks.located import Located

NAMES = {
    "attention": {"attention", "operations"},
    "write": {"write", "operations"},
    "rope": {"rope"},
    "rotation": {"rotation"},
    "norm": {"norm"},
    "mask": {"mask"},
    "scale": {"parameters"},
    "softcap": {"parameters"},
    "positions": {"parameters"},
    "cells": {"operations", "write"},
    "shift": {"operations", "shift", "rope"},
    "outside": {"ladder"},
    "unwatched": {"fused", "ladder"},
}
"""What a planted operation may be called; one that lives only after a cache operation is that."""


def named(fault: Planted, located: Located | None) -> Literal["right", "wrong", "unexplained"]:
    """The kernel, the side and the batch sizes of a diagnosis beside what was planted."""
    if located is None:
        return "unexplained"
    side, (low, high) = fault.where.get("side", "").upper(), fault.where.get("tokens", (0, 1 << 30))
    kernel = located.operation in NAMES[fault.operation]
    sides = not side or located.side in ("", side)
    sizes = not located.tokens or any(low <= count <= high for count in located.tokens)
    return "right" if kernel and sides and sizes else "wrong"
