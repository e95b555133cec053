"""Progress while a run works: one line rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_kvquant import format
from pytest_kvquant.matrix import Pair

if TYPE_CHECKING:
    from _pytest.capture import CaptureManager

QUIET_SECONDS = 10.0
"""Plain output says something at most this often within a cell."""


class Progress:
    """Tells a person how the run goes on, through pytest's own terminal writer."""

    def __init__(self, config: pytest.Config) -> None:
        plugins = config.pluginmanager
        self._capture: CaptureManager | None = plugins.getplugin("capturemanager")
        self._terminal: pytest.TerminalReporter | None = plugins.getplugin("terminalreporter")
        self._live = self._terminal is not None and self._terminal.isatty
        self._begun = time.monotonic()
        self._said = self._begun
        self._cell: Pair | None = None

    def note(self, line: str) -> None:
        """Something that a person should read."""
        self._line(f"kvquant: {line}")

    def reference(self, chunks: int) -> None:
        """So many more chunks of the reference were computed."""
        self._status(f"f16 reference, {chunks} more chunks computed")

    def cell(self, pair: Pair, number: int, cells: int, chunks: int, cap: int) -> None:
        """A cell has so many chunks now."""
        text = f"cell {number}/{cells} {pair}: {chunks} of at most {cap} chunks"
        if number > 1:
            passed = time.monotonic() - self._begun
            text += f", about {format.seconds(passed / (number - 1) * (cells - number + 1))} left"
        self._status(text, fresh=pair != self._cell)
        self._cell = pair

    def _status(self, text: str, *, fresh: bool = False) -> None:
        now = time.monotonic()
        if self._live:
            with self._uncaptured():
                if self._terminal is not None:
                    self._terminal.rewrite(f"kvquant: {text}", erase=True)
        elif fresh or now - self._said >= QUIET_SECONDS:
            self._said = now
            self._line(f"kvquant: {text}")

    def _line(self, text: str) -> None:
        with self._uncaptured():
            if self._terminal is not None:
                self._terminal.ensure_newline()
                self._terminal.write_line(text)

    @contextmanager
    def _uncaptured(self) -> Iterator[None]:
        if self._capture is None:
            yield
        else:
            with self._capture.global_and_fixture_disabled():
                yield
