"""The tables that come of the simulated matrices."""

from __future__ import annotations

from collections.abc import Iterable

from tools.error_rates.alone import alone
from tools.error_rates.matrices import BOTH, KERNEL, ROUTES, Judged, simulate

MATRICES = 2000
HEALTHY, FAULTY = (0.5, 0.9, 1.0), (1.2, 1.5, 2.0)
GROSS = {5.0: "KL 1.5 ×", 10.0: "KL 2 ×", 30.0: "KL 4 ×"}
"""Levels of a limit of 1.10 at which a cell costs so many times what a healthy one does."""

SPREADS = {False: "even", True: "one chunk in 32"}


def render(matrices: int = MATRICES) -> str:
    """All tables, in markdown."""
    none, ten = _exact(0, matrices), _exact(matrices // 200, matrices)
    return "\n".join(
        [
            f"{matrices:,} matrices of 16 pairs for each figure; every gated figure of every pair "
            "on its level. Runs that fail:",
            "",
            *_false_alarms(matrices),
            "",
            f"0.00 % is none of {matrices:,}: with 95 % at most {none[1]:.2f} %; 0.50 % is "
            f"{ten[0]:.2f} to {ten[1]:.2f} %.",
            "",
            "One pair beyond in all of its figures, the others healthy (at half of the way). How "
            "often the run fails, and how often the pair passes all of its gates, and each:",
            "",
            *_missed(KERNEL, "beside the healthy cell", matrices),
            "",
            *_missed(BOTH, "within budgets, which are gates beside those", matrices),
            "",
            *alone(matrices),
        ]
    )


def _false_alarms(matrices: int) -> Iterable[str]:
    yield "| route | judged | spread | " + " | ".join(f"{one:g} ×" for one in HEALTHY) + " |"
    yield "|---|---|---|" + "--:|" * len(HEALTHY)
    for route in ROUTES:
        for judged in (KERNEL, BOTH):
            for concentrated, where in SPREADS.items():
                found = [
                    simulate(route, judged, one, one, concentrated=concentrated, matrices=matrices)
                    for one in HEALTHY
                ]
                rates = " | ".join(f"{100 * one.failed / matrices:.2f} %" for one in found)
                yield f"| {route.name} | {judged.words} | {where} | {rates} |"


def _missed(judged: Judged, title: str, matrices: int) -> Iterable[str]:
    shown = judged.gates[-5:] if judged is KERNEL else judged.gates[:5]
    yield (
        f"| {title} | one pair at | spread | runs that fail | it passes | "
        + " | ".join(f"`{one}`" for one in shown)
        + " |"
    )
    yield "|---|--:|---|" + "--:|" * (2 + len(shown))
    for route in ROUTES:
        for concentrated, where in SPREADS.items():
            gross = GROSS if judged is KERNEL and not concentrated else {}
            for level in (*FAULTY, *gross):
                found = simulate(
                    route, judged, level, 0.5, concentrated=concentrated, matrices=matrices
                )
                counts = (found.all_passed, *(found.passed[one] for one in shown))
                rates = " | ".join(f"{100 * count / matrices:.1f} %" for count in counts)
                at = gross.get(level, f"{level:g} ×")
                yield (
                    f"| {route.name} | {at} | {where} | {100 * found.failed / matrices:.1f} % | "
                    f"{rates} |"
                )


def _exact(hits: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson, 95 %, in percent."""
    from scipy.stats import binomtest  # type: ignore[import-untyped, unused-ignore]

    interval = binomtest(hits, n).proportion_ci()
    return 100 * float(interval.low), 100 * float(interval.high)
