"""Findings about one pair put together: what several watches saw of a corner is summed up."""

from __future__ import annotations

import dataclasses

import msgspec

from pytest_kvquant.engine.messages.kernels import Seen
from pytest_kvquant.results.kernels import CornerRecord, Examination, NodeFailure


def with_seen(found: Examination, seen: Seen, scenario: str = "") -> Examination:
    """The findings with those of another watch; equal corners are summed up.

    Args:
        scenario: in which they were made; empty on the ascent.
    """
    corners = {_key(one): one for one in found.corners}
    for one in [CornerRecord(**dataclasses.asdict(one)) for one in seen.corners]:
        old = corners.get(_key(one))
        corners[_key(one)] = _short(one if old is None else _sum(old, one))
    failures = tuple(
        NodeFailure(**dataclasses.asdict(one), scenario=scenario) for one in seen.failures
    )
    unknown = dict(found.unknown)
    for name, count in seen.unknown.items():
        unknown[name] = unknown.get(name, 0) + count
    return msgspec.structs.replace(
        found,
        corners=tuple(corners.values()),
        failures=(*found.failures, *failures),
        unknown=unknown,
    )


def _short(one: CornerRecord) -> CornerRecord:
    """With four digits of each figure: thousands of corners make up most of a result."""
    ratio, error, worst = (float(f"{value:.4g}") for value in (one.ratio, one.error, one.worst))
    return msgspec.structs.replace(one, ratio=ratio, error=error, worst=worst)


def _key(one: CornerRecord) -> tuple[object, ...]:
    return (one.operation, one.k_type, one.v_type, one.head_k, one.head_v, one.group, one.tokens,
            one.length, one.mask, one.backend)  # fmt: skip


def _sum(one: CornerRecord, other: CornerRecord) -> CornerRecord:
    nodes = one.nodes + other.nodes
    return msgspec.structs.replace(
        one,
        nodes=nodes,
        failed=one.failed + other.failed,
        ratio=max(one.ratio, other.ratio),
        error=(one.error * one.nodes + other.error * other.nodes) / nodes,
        worst=max(one.worst, other.worst),
    )
