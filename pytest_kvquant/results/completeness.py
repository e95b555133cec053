"""What a run was asked for, whether all of it was done, and in how many goes."""

from __future__ import annotations

import msgspec


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the matrix that was asked for: judged as a run of its own, and no more than that.

    Not what was *done*: see ``complete`` of a result.
    """

    pairs: tuple[str, ...]
    """Pairs that selected tests are of, in order."""
    of: int
    """Pairs of the whole matrix, those of other shards included."""
    tests: tuple[str, ...] = ()
    """Names of the selected tests."""
    left_out: tuple[str, ...] = ()
    """Names of tests of which none was selected although they were collected (``-k``, node ids)."""
    shard: str = ""
    """``i/n`` of ``--kv-shard``; empty: not divided."""

    @property
    def whole(self) -> bool:
        """Whether it is everything."""
        return not self.left_out and not self.shard and len(self.pairs) == self.of

    @property
    def text(self) -> str:
        """One line, of a selection that is not everything."""
        parts = []
        if len(self.pairs) != self.of:
            parts.append(f"{len(self.pairs)} of {self.of} pairs")
        if self.left_out:
            shown = ", ".join(self.left_out[:3])
            more = f" and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else ""
            parts.append(f"without {shown}{more}")
        if self.shard:
            parts.append(f"shard {self.shard}")
        return f"selected: {', '.join(parts)}"


class Sitting(msgspec.Struct, frozen=True, kw_only=True):
    """One go of a run: after an interruption the same command goes on in another one."""

    started: str
    """UTC, ISO 8601."""
    cells: tuple[str, ...] = ()
    """Pairs whose quality was measured in it."""
    speeds: tuple[str, ...] = ()
    """Pairs that were timed in it, with their f16 in turn: no ratio spans two sittings."""
    ceilings: tuple[str, ...] = ()
    """Pairs whose largest context was searched in it."""


class ReferenceUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a sitting did for the f16 reference, in chunks."""

    computed: int
    reused: int
    damaged: int


def used_together(parts: list[ReferenceUse]) -> ReferenceUse:
    """What all sittings did: chunks that one computed and a later one reused count once.

    >>> used_together([ReferenceUse(computed=8, reused=0, damaged=0),
    ...                ReferenceUse(computed=0, reused=8, damaged=0)])
    ReferenceUse(computed=8, reused=0, damaged=0)
    """
    computed = sum(part.computed for part in parts)
    used = max((part.computed + part.reused for part in parts), default=0)
    return ReferenceUse(
        computed=computed,
        reused=max(0, used - computed),
        damaged=sum(part.damaged for part in parts),
    )
