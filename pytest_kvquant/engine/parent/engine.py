"""How workers are started, and how a context of one is shaped."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec

from pytest_kvquant.machine.environment import Environment
from pytest_kvquant.machine.visible import ALL, Visible


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """How workers are started: which interpreter, which library, which environment."""

    python: str = sys.executable
    directory: str | None = None
    """The build to measure; ``None`` is the one that llama-cpp-python brought."""
    device: str | None = None
    """The ggml device to use alone, as the user names it; ``None`` leaves the choice to
    llama.cpp."""
    visible: Visible = ALL
    """Devices that workers see."""
    setup: Mapping[str, object] = {}
    """Options of llama.cpp by name, of its model and its contexts; none: its defaults."""
    environment: Environment
    timeout: float
    """Seconds of silence after which a worker is taken for hung."""


class BatchShape(msgspec.Struct, frozen=True, kw_only=True):
    """How chunks are cut and batched. All of it can change the last bits of a figure."""

    ctx: int
    scored: int
    sequences: int
    batch: int
    ubatch: int
    threads: int
