"""One run at a time on a machine, awake, and after it has cooled down.

For machines that measure speeds: two runs at once measure each other, and one that starts on a hot
machine measures the run before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pytest_kvquant.machine.apple.thermal import thermal_pressure
from pytest_kvquant.machine.files import cache_folder

POLL = 5.0
"""Seconds between two looks."""

CALM = 6
"""Looks in a row that must find the machine cool: a level falls before the heat is gone."""


def lock_file() -> Path:
    """The lock of this user's runs on this machine."""
    return cache_folder() / "alone.lock"


def cool_down(
    patience: float,
    *,
    level: Callable[[], str | None] = thermal_pressure,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Wait until the thermal pressure has been nominal for half a minute.

    Args:
        patience: most seconds to wait.
        level: asks for the pressure.

    Returns:
        The pressure at the end; ``None`` where the system does not tell one.
    """
    waited, calm = 0.0, 0
    while (now := level()) is not None:
        calm = calm + 1 if now == "nominal" else 0
        if calm >= CALM or waited >= patience:
            break
        sleep(POLL)
        waited += POLL
    return now
