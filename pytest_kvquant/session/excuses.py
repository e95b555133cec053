"""Which pairs that cannot be measured fail nothing."""

from __future__ import annotations

from collections.abc import Collection

from pytest_kvquant.checks.declared import is_declared
from pytest_kvquant.engine.parent.endings import NO_REASON
from pytest_kvquant.results.cell import Cell


def is_excused(
    cell: Cell,
    *,
    named: bool,
    accepted: bool,
    strict: bool,
    declared: Collection[str] = frozenset(),
) -> bool:
    """Whether a cell may stay unmeasured: the library itself rules the pair out, and nobody asked.

    What ``[expect]`` declares of it may, whoever asked.

    All ordered pairs of ``--kv-types`` come with some that a build or a model does not take: latent
    attention has no mixed pairs, blocks do not divide every head. That is no failure, unless the
    pair was named, or has worked before.

    Args:
        named: whether ``--kv-pairs`` names the pair.
        accepted: whether a baseline has it.
        strict: whether all that was asked for has to be measured.
        declared: names in ``[expect] fails``, as they hold for the pair on the device.
    """
    if is_declared(cell, declared):
        return True
    told = cell.verdict == "unsupported" and NO_REASON not in (cell.message or "")
    return told and not (named or accepted or strict)
