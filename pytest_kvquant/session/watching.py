"""Hooks of a run under way: which tests ended, what interrupted it, and that it is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_kvquant.machine.signals import Watch
from pytest_kvquant.session.stash import DISTRIBUTION, SESSION

if TYPE_CHECKING:
    from pytest_kvquant.session.distribution import Distribution
    from pytest_kvquant.session.run import Session


class RunHooks:
    """One of each pytest process of a run.

    Args:
        config: of that process.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._watch = Watch()
        self._watch.begin()
        config.add_cleanup(self._watch.end)

    @property
    def run(self) -> Session | Distribution | None:
        """The run, once it is prepared."""
        stash = self._config.stash
        return stash.get(DISTRIBUTION, None) or stash.get(SESSION, None)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test has ended, in this process or in one of pytest-xdist's."""
        if self.run is not None:
            self.run.ledger.ended(nodeid)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note what ended the run: Ctrl-C, a signal, or a test that gave up."""
        if self.run is not None:
            self.run.ledger.reason = str(excinfo.value) or "Ctrl-C"

    @property
    def stopped(self) -> int | None:
        """The signal that ended the run, if one did."""
        return self._watch.seen
