"""Pairs whose attention ran on the CPU though a GPU holds their cache, in a line."""

from __future__ import annotations

from pytest_kvquant.results.result import Result


def off_device_lines(result: Result) -> list[str]:
    """A line for pairs that were declared so and pass; those that were not fail, with words."""
    names = [
        cell.pair
        for cell in result.cells
        if cell.verdict != "off-device" and cell.placement is not None and cell.placement.off_device
    ]
    if not names:
        return []
    device = result.environment.library.device
    count = "1 pair" if len(names) == 1 else f"{len(names)} pairs"
    return [
        f"off {device}, as declared: attention of {count} runs on the CPU, and their speed is told "
        f"and not judged: {', '.join(names)}"
    ]
