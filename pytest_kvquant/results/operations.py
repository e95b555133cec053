"""Which operations of a cell ran on which device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from pytest_kvquant.numerics.buffers import of_processor

ATTENTION, WRITE = "FLASH_ATTN_EXT", "SET_ROWS"


class OperationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of operation on one device, counted in one graph."""

    path: str
    """``prefill``: a graph of many tokens; ``decode``: of one."""
    op: str
    """As ggml names it; ``*`` for all that do not touch the cache."""
    types: str
    """``K/V`` of attention, the type written to a cache; empty for others."""
    head: int
    """Elements of a head of the query, for attention; 0 for others."""
    device: str
    """Name of the buffer that the results lie in: ``MTL0``, ``CPU``, …"""
    nodes: int
    """How many."""


def on_cpu(operations: Iterable[OperationRecord]) -> list[OperationRecord]:
    """Operations on the cache whose results lie in the CPU's memory."""
    return [one for one in operations if one.op in (ATTENTION, WRITE) and of_processor(one.device)]


def off_device_text(operations: Sequence[OperationRecord], device: str) -> str:
    """What of a cell's cache is computed on the CPU although ``device`` computes; empty: nothing.

    >>> one = OperationRecord(
    ...     path="decode", op="FLASH_ATTN_EXT", types="f16/q8_0", head=128, device="CPU", nodes=4
    ... )
    >>> off_device_text([one], "MTL0")
    'FLASH_ATTN_EXT of f16/q8_0 at head size 128 runs on the CPU in decode: MTL0 has none for it'
    """
    away = on_cpu(operations)
    if not away:
        return ""
    first = away[0]
    paths = " and ".join(dict.fromkeys(one.path for one in away))
    head = f" at head size {first.head}" if first.head else ""
    some = any(one.op == first.op and one.device == device for one in operations)
    share = ", in some layers," if some else ""
    return (
        f"{first.op} of {first.types}{head} runs on the CPU in {paths}{share}: {device} has none "
        "for it"
    ).replace(",:", ":")
