"""What variants of one build cost or gain beside each other: two at a time, pair by pair."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from pytest_kvquant import format
from pytest_kvquant.report.matrix_rows import rows
from pytest_kvquant.results.result import Result


def lines(
    results: Mapping[str, Result], variants: Mapping[str, Mapping[str, str]]
) -> Sequence[str]:
    """What each variant costs or gains beside each other one, a line a pair that moved."""
    found: list[str] = []
    seen = {name: {row.pair: row for row in rows(result)} for name, result in results.items()}
    for one, other in itertools.combinations(seen, 2):
        what = ", ".join(f"{name}={value}" for name, value in variants.get(other, {}).items())
        found += ["", f"{one} → {other}{f' ({what})' if what else ''}"]
        same = []
        for pair, before in seen[one].items():
            after = seen[other].get(pair)
            moved = []
            if after is None:
                found.append(f"  {pair}: not measured under {other}")
                continue
            if before.verdict != after.verdict:
                moved.append(f"{before.verdict} → {after.verdict}")
            if before.kl is not None and after.kl is not None and before.kl != after.kl:
                moved.append(
                    f"KL {format.kl(before.kl)} → {format.kl(after.kl)} "
                    f"({after.kl - before.kl:+.2g} nats)"
                )
            if before.tg_ratio and after.tg_ratio:
                speeds = [format.factor(one) for one in (before.tg_ratio, after.tg_ratio)]
                if speeds[0] != speeds[1]:
                    moved.append(f"tg {' → '.join(speeds)} × f16")
            if moved:
                found.append(f"  {pair}: {', '.join(moved)}")
            else:
                same.append(pair)
        if same:
            found.append(f"  as before: {', '.join(same)}")
    return found
