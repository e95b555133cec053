"""Budgets and floors for a model of one's own, from what its pairs show here.

A budget is the margin times the unfavourable end of what was measured, and never under ten noise
floors, which is what can be measured. A pair whose figures no owner should want is named unfit and
gets no budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.budget import Shown
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.speed import SpeedCell

SPEED_SHARE = 0.85
"""Of the measured ratio to f16, as a floor."""
UNFIT_KL = 0.25
UNFIT_TOP1 = 0.75


def unfit(cell: Cell) -> str:
    """Why a pair is nothing to gate, in words; empty where it is fit."""
    if cell.quality is None:
        return f"{cell.verdict}: {(cell.message or 'not measured').splitlines()[0]}"
    figures = cell.quality.prefill
    if figures.kl_mean > UNFIT_KL:
        return f"KL {figures.kl_mean:.3f}: it is another model"
    if figures.top1 < UNFIT_TOP1:
        return f"top-1 {figures.top1:.1%}: more than a quarter of all tokens change"
    wrong = [one.name for one in cell.checks if one.verdict == "fail" and one.name in OF_FIGURES]
    return f"it fails {', '.join(wrong)}" if wrong else ""


OF_FIGURES = (
    "types", "placement", "contents", "active", "distinct", "shapes", "restore", "attention",
    "cache_writes", "graph_inputs",
)  # fmt: skip
"""Checks without which the figures of a pair are those of a fault. A cache operation that crashes,
memory or the device of attention say nothing of them."""


def budgets(cell: Cell, margin: float, floor: float) -> dict[str, float]:
    """The budgets of a fit pair, each as its declaration says.

    Args:
        margin: times what was measured; 2 is usual.
        floor: mean KL of f16 against itself, nats.
    """
    shown = Shown(cell, margin, floor)
    found = {
        one.key: max(value, one.least)
        for one in registry.budgets()
        if one.calibrated is not None and (value := one.calibrated(shown)) is not None
    }
    return {name: _rounded(value) for name, value in found.items()}


def floors(cell: SpeedCell) -> dict[int, dict[str, float]]:
    """Floors of speed by depth, as shares of f16's."""
    found: dict[int, dict[str, float]] = {}
    for test in cell.tests:
        if test.ratio is not None and test.verdict != "cliff":
            found.setdefault(test.n_depth, {})[test.kind] = round(SPEED_SHARE * test.ratio, 2)
    return found


def as_toml(result: Result, margin: float) -> str:
    """``[budgets]`` and ``[floors]`` with the figures they come from, and what is unfit."""
    floor = result.floor.kl if result.floor else 0.0
    cells = [cell for cell in result.cells if cell.pair != "f16/f16"]
    library, shape = result.environment.library, result.settings
    lines = [
        f"# By kvquant calibrate on {result.environment.started[:10]}: {result.model.name}, "
        f"{result.corpus.name},",
        f"# {shape.cap} chunks of {shape.ctx} tokens, {library.build}, {library.chip}.",
        f"# Margin {margin:g}; f16 against itself shows KL {floor:.2g}.",
    ]
    for cell in cells:
        if reason := unfit(cell):
            lines += ["", f"# {cell.pair} is unfit: {reason}"]
            continue
        assert cell.quality is not None
        seen = cell.quality.prefill
        lines += [
            "",
            f"# measured: KL {seen.kl_mean:.3g} ± {seen.kl_mean_chunk_se or 0:.1g}, 99 % under "
            f"{seen.kl_p99:.3g}, ln PPL {seen.ln_ppl_ratio:+.4f}, top-1 {seen.top1:.2%}",
            f'[budgets."{cell.pair}"]',
            *_entries(budgets(cell, margin, floor)),
        ]
    speeds = [one for one in result.speed if floors(one)]
    if speeds:
        lines += ["", f"# {SPEED_SHARE:g} of the ratios to f16 that were measured here"]
        lines += ["[floors]", *_floor_lines(speeds)]
    return "\n".join(lines) + "\n"


def _floor_lines(speeds: Iterable[SpeedCell]) -> list[str]:
    found = []
    for one in speeds:
        for depth, kinds in floors(one).items():
            values = ", ".join(f"{kind} = {value:g}" for kind, value in kinds.items())
            found.append(f'"{one.pair} @ d{depth}" = {{ {values} }}')
    return found


def _entries(values: dict[str, float]) -> list[str]:
    return [f"{name} = {value:g}" for name, value in values.items()]


def _rounded(value: float) -> float:
    """Two significant digits, up: a budget is never under what it came from."""
    if value <= 0:
        return 0.0
    digits = 1 - math.floor(math.log10(value))
    scale = 10.0**digits
    return math.ceil(value * scale - 1e-9) / scale
