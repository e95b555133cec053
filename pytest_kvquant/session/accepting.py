"""The baselines of a run: what was accepted earlier, and what is accepted now."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec

from pytest_kvquant import __version__
from pytest_kvquant.baselines.file import Baseline, BaselineConditions, encode
from pytest_kvquant.baselines.quality import Baselines, hardware_class
from pytest_kvquant.machine.files import replace
from pytest_kvquant.machine.hardware import cpu_name
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.baseline import BaselineRecord, BaselinesRecord
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.session.account import RunAccount
from pytest_kvquant.session.compared import Compared
from pytest_kvquant.session.prepared import Prepared


class AcceptedCells:
    """Compares measured cells with their baselines; a run against another build has none."""

    def __init__(self, ready: Prepared, compared: Compared, account: RunAccount) -> None:
        self._ready, self._compared, self._account = ready, compared, account
        self._baselines = _open(ready)

    @property
    def on(self) -> bool:
        """Whether cells are compared with what was accepted earlier."""
        return self._baselines is not None

    def path(self, pair: Pair) -> Path:
        """The file of a cell's baseline."""
        assert self._baselines is not None
        return self._baselines.path(str(pair))

    def has(self, pair: Pair) -> bool:
        """Whether a cell was accepted earlier."""
        return self.on and self.path(pair).exists()

    def beside(self, cell: Cell) -> BaselineRecord | None:
        """A measured cell beside its baseline; ``None`` where there is nothing to compare."""
        if self._baselines is None or not cell.gates:
            return None
        return self._baselines.compare(cell, self._noise(cell))

    def of(self, cell: Cell) -> Baseline:
        """A measured cell as it is accepted."""
        assert self._baselines is not None
        return self._baselines.of(cell, self._noise(cell))

    def accepted(self, pair: Pair) -> None:
        """Take note that the figures of a cell were written as its baseline."""
        assert self._baselines is not None
        self._baselines.accepted(str(pair))

    def propose(self, cell: Cell, before: BaselineRecord) -> Path:
        """Write better figures beside the baselines, for a person to put in their place.

        Raises:
            OSError: they cannot be written.
        """
        assert self._baselines is not None
        path = self._baselines.proposal(cell.pair)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, encode(self.of(cell)).encode())
        self._baselines.proposed(cell.pair, before)
        return path

    def record(self) -> BaselinesRecord | None:
        """Where baselines lie, and which are of no cell."""
        if self._baselines is None:
            return None
        account = self._account
        every = account.selected == account.pairs and not account.elsewhere
        whole = every and not self._ready.settings.pairs
        return self._baselines.record(account.pairs, whole=whole)

    def _noise(self, cell: Cell) -> float:
        """What f16 showed against itself where a cell was measured, mean KL in nats."""
        pair, floors = Pair.parse(cell.pair), self._account.floors
        return (floors[pair] if pair in floors else self._compared.control(pair).floor).kl


def refusal(cell: Cell, open_tests: list[str]) -> str:
    """Why the figures of a cell must not be accepted, however much asked for; or nothing.

    Args:
        cell: in the light of the whole matrix.
        open_tests: tests of it that have not ended.
    """
    others = [test for test in open_tests if "test_baseline" not in test]
    if others:
        return f"{len(others)} of its tests have not ended"
    wrong: list[str] = [gate.name for gate in cell.gates if gate.verdict == "fail"]
    wrong += [check.name for check in cell.checks if check.verdict == "fail"]
    return f"it fails {', '.join(wrong)}" if wrong else ""


def _open(ready: Prepared) -> Baselines | None:
    settings, task, library = ready.settings, ready.task, ready.library
    if settings.baselines is None or ready.other_build is not None:
        return None
    conditions = BaselineConditions(
        model=ready.model.name,
        model_fingerprint=ready.model.fingerprint,
        corpus=ready.texts.corpus.name,
        corpus_fingerprint=ready.texts.corpus.fingerprint,
        library=library.build,
        library_hash=library.hash,
        device=library.computing,
        cpu=cpu_name(platform.processor()),
        gpu_layers=task.gpu_layers,
        environment={**settings.environment, **ready.setup},
        plugin=__version__,
        **msgspec.to_builtins(task.shape),
    )
    hardware = hardware_class(library, platform.machine(), task.gpu_layers)
    return Baselines(settings.baselines, hardware, conditions, task.chunks)
