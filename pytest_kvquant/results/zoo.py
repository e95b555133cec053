"""What was found about a pair on one member of the zoo."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.kernels import Examination


class ZooCell(msgspec.Struct, frozen=True, kw_only=True):
    """One pair on one tiny model: its kernels against exact arithmetic, no language involved."""

    member: str
    """Name of the model in the zoo."""
    pair: str
    """As `K/V`."""
    architecture: str
    """Of the member."""
    like: str
    """Real checkpoints of this shape."""
    head_k: int
    """Elements of a K head; of the widest, where layers differ."""
    head_v: int
    """Elements of a V head."""
    group: int
    """Query heads per KV head."""
    features: tuple[str, ...]
    """What a kernel or a graph could leave out."""
    verdict: Literal["pass", "fail", "inconclusive", "unsupported"]
    """``unsupported``: the library rules the pair out on this model."""
    text: str
    """Why it does not pass; empty where it does."""
    checks: tuple[Check, ...] = ()
    """The checks of kernels, in their order."""
    kernels: Examination | None = None
    """What they were decided on."""
