"""How near the speeds come to what the machine permits, in a line a test."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pytest_kvquant.matrix import REFERENCE
from pytest_kvquant.results.speed import RoofShare, SpeedCell, SpeedTest

SLOWER = 0.7
"""Share of the rate in the speed baseline under which a machine is called slower; that of a quiet
one comes back within a tenth."""


def roof_lines(cells: Sequence[SpeedCell]) -> list[str]:
    """A line for each kind of test of which the roof is known."""
    tests = [(cell.pair, test, test.roof) for cell in cells for test in cell.tests if test.roof]
    lines = []
    for kind in dict.fromkeys(test.kind for _, test, _ in tests):
        own = [one for one in tests if one[1].kind == kind]
        shares = [
            text
            for depth in sorted({test.n_depth for _, test, _ in own})
            if (text := _at([one for one in own if one[1].n_depth == depth], depth))
        ]
        lines.append(f"{kind}, of the most that {_rates(own)} permit: {'; '.join(shares)}")
    return lines


def percent(share: float) -> str:
    """A share without decimals: it is measured to a few percent.

    >>> percent(0.473), percent(0.0034)
    ('47%', '0.3%')
    """
    return f"{100 * share:.1f}%" if share < 0.01 else f"{share:.0%}"


def _rates(tests: Sequence[tuple[str, SpeedTest, RoofShare]]) -> str:
    by = {roof.by: roof for _, _, roof in tests}
    return " and ".join(rate(roof) + _before(roof) for roof in by.values())


def _before(roof: RoofShare) -> str:
    """What the machine did in the speed baseline, where it does clearly less now."""
    then = roof.stored_rate
    if then is None or roof.rate >= SLOWER * then:
        return ""
    faster = rate(msgspec.structs.replace(roof, rate=then))
    return f" ({faster} in the speed baseline: the machine is busy or held back)"


def rate(roof: RoofShare) -> str:
    """What was measured, in words."""
    per_second = roof.rate / 1e9
    number = f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"
    return f"{number} {'GB/s' if roof.by == 'bandwidth' else 'GFLOP/s'}"


def _at(tests: Sequence[tuple[str, SpeedTest, RoofShare]], depth: int) -> str:
    """Shares at one depth: of f16, and the span of the other pairs."""
    f16 = [roof.reference_share for *_, roof in tests if roof.reference_share is not None]
    others = [roof.share for pair, _, roof in tests if pair != str(REFERENCE)]
    parts = []
    if f16:
        middle = sorted(f16)[len(f16) // 2]
        parts.append(f"{REFERENCE} {percent(middle)}")
    if others:
        least, most = percent(min(others)), percent(max(others))
        parts.append(f"other pairs {least if least == most else f'{least} to {most}'}")
    where = f"at depth {depth:,} " if depth else ""
    return where + ", ".join(parts) if parts else ""
