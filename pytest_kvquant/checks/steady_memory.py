"""Memory that a cell does not give back, and compute buffers beside those of f16."""

from __future__ import annotations

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.memory import SteadyMemory

TOKEN = 64 << 10
"""Bytes a token may leave behind. Allocators keep pages, and none is seen on healthy builds; ten
megabytes a decode are 160 times this."""

CONTEXT = 2 << 20
"""Bytes a freed context may leave behind: the allocator's own pages."""

COMPUTE = 2.0
"""Times f16's compute buffer that a pair's may be larger, or smaller."""

COMPUTE_BESIDE = 32.0
"""MiB by which compute buffers may differ whatever their ratio: those of tiny models."""


def check_steady(found: SteadyMemory, reference: SteadyMemory | None) -> Check:
    """Nothing stays behind after tokens and contexts; compute buffers are about those of f16.

    Args:
        reference: the same of f16; ``None``: not known, or this is f16.
    """
    seen = [
        (device, f"{_size(kept)} stay {_place(device)} after every {what}")
        for what, each, limit in (
            ("token", found.per_token, TOKEN),
            ("context that was freed", found.per_context, CONTEXT),
        )
        for device, kept in each.items()
        if kept > limit
    ]
    shared = {device for device, size in found.elsewhere.items() if size > TOKEN}
    complaints = [text for device, text in seen if device not in shared]
    complaints += _compute_complaints(found, reference)
    kept = max((*found.per_token.values(), 0.0))
    if complaints:
        return fact("steady_memory", "fail", "; ".join(complaints), figure=kept, limit=float(TOKEN))
    if doubtful := [text for device, text in seen if device in shared]:
        others = ", ".join(f"{_size(found.elsewhere[one])} on {one}" for one in sorted(shared))
        return fact(
            "steady_memory",
            "inconclusive",
            f"{'; '.join(doubtful)}; but as much as {others} came or went while this process did "
            "nothing: others use that memory, run again without them",
        )
    if not found.per_token:
        return fact("steady_memory", "inconclusive", "this system does not tell what stays")
    worst = max((*found.per_context.values(), 0.0))
    buffers = ", ".join(f"{device} {size:g} MiB" for device, size in found.compute.items())
    return fact(
        "steady_memory",
        "pass",
        f"at most {_size(kept)} stay after a token, {_size(worst)} after a context"
        + (f"; compute buffers: {buffers}" if buffers else ""),
        figure=kept,
        limit=float(TOKEN),
    )


def _place(device: str) -> str:
    return "in the process" if device == "host" else f"on {device}"


def _compute_complaints(found: SteadyMemory, reference: SteadyMemory | None) -> list[str]:
    complaints = []
    for device, size in found.compute.items():
        usual = reference.compute.get(device) if reference is not None else None
        if usual is None or abs(size - usual) <= COMPUTE_BESIDE:
            continue
        if not usual / COMPUTE <= size <= usual * COMPUTE:
            complaints.append(
                f"the compute buffer on {device} takes {size:g} MiB, that of f16 {usual:g} MiB"
            )
    return complaints


def _size(count: float) -> str:
    if count >= 1 << 20:
        return f"{count / (1 << 20):,.1f} MiB"
    return f"{count / 1024:,.0f} KiB"


@check("steady_memory", title="steady memory", test="test_steady_memory", group="memory",
       needs="shapes", order=20)  # fmt: skip
def steady_memory(subject: Subject) -> Check | None:
    """Tokens and contexts leave no memory behind, and compute buffers are about those of f16.

    Why: a server decodes for days, and makes contexts over and over. A leak of ten megabytes a
    decode changes no logit.

    Healthy: nothing stays; compute buffers are those of f16 within a factor of 2 or 32 MiB.

    A failure means: what is allocated per decode or per context is not freed; the text says which
    and where. A compute buffer twice as large as f16's holds an unpacked copy of the cache.
    """
    found = subject.cell.memory
    return None if found is None else check_steady(found, subject.reference_memory)
