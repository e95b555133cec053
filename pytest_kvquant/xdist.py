"""Hooks of the process that controls those of pytest-xdist: a device each, cell by cell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

from pytest_kvquant.matrix import Pair
from pytest_kvquant.session.distribution import DEVICE, RESULT, Distribution
from pytest_kvquant.session.ledger import pair_of

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController


class XdistHooks:
    """What pytest-xdist asks while it starts and ends its processes."""

    def __init__(self, run: Distribution) -> None:
        self._run = run

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Give a process its device; one that takes the place of a dead one gets that one's."""
        node.workerinput[DEVICE] = self._run.take_device()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController, error: object) -> None:
        """Take a process's result and its device back; of one that died, note that it did."""
        if error is not None:
            self._run.ledger.broken(f"process {node.gateway.id} of pytest-xdist died")
        text = getattr(node, "workeroutput", {}).get(RESULT)
        self._run.end(node.gateway.id, node.workerinput[DEVICE], text)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Note what was selected: every process collects the same tests."""
        pairs = [str(pair) for pair in self._run.pairs]
        for test in ids:
            self._run.ledger.plan(test, pair_of(test, pairs))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> ByCell:
        """Distribute the tests cell by cell."""
        return ByCell(config, log, self._run.pairs)


class ByCell(LoadScopeScheduling):
    """All tests of a cell on one process, which measures the cell once."""

    def __init__(self, config: pytest.Config, log: object, pairs: Iterable[Pair]) -> None:
        super().__init__(config, log)
        self._pairs = {str(pair) for pair in pairs}

    def _split_scope(self, nodeid: str) -> str:
        return pair_of(nodeid, self._pairs) or nodeid
