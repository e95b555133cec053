"""What is asked of a run, and what it has found so far."""

from __future__ import annotations

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.kernel_names import KERNEL_GATES
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.matrix import Pair, plan_pairs, take_shard
from pytest_kvquant.results.cell import Cell, NoiseFloor
from pytest_kvquant.results.completeness import Selection
from pytest_kvquant.results.result import Unmeasured
from pytest_kvquant.session.ledger import RollCall


def figures_per_cell() -> int:
    """Gated figures of one cell: each counts against chance."""
    return len(registry.gates()) + len(KERNEL_GATES)


class RunAccount:
    """Written by all parts of a run as it goes on.

    Raises:
        SettingsError: pairs, or a shard of them, that cannot be meant.
    """

    def __init__(self, settings: Settings) -> None:
        self.matrix = plan_pairs(settings.types, settings.pairs, settings.skip)
        """Cells of the run and of the other shards."""
        self.pairs = take_shard(self.matrix, settings.shard)
        self.selected = self.pairs
        """Cells of this run that tests ask for, in order."""
        self.ledger = RollCall()
        """The tests of this run; empty where no pytest is around it."""
        self.left_out: tuple[str, ...] = ()
        """Names of tests that were collected and not selected."""
        self.invocation: list[str] = []
        """Options as typed, for the command that repeats one cell."""
        self.cells: dict[Pair, Cell] = {}
        self.floors: dict[Pair, NoiseFloor] = {}
        """What each cell was measured against, of this sitting or of an earlier one."""
        self.unmeasured: list[Unmeasured] = []
        self.announced: set[Pair] = set()
        """Cells whose failure to be measured a test has reported already."""
        self.failed: set[Pair] = set()
        """Cells of which a test failed."""
        self.broken = ""
        """Why nothing at all can be measured, where that showed on the way."""
        self.complaints: list[str] = []
        """Files that could not be written on the way, a sentence each."""
        self._shard = settings.shard or ""

    @property
    def elsewhere(self) -> int:
        """Cells of the matrix that other shards measure: chance is corrected for over all."""
        return len(self.matrix) - len(self.pairs)

    @property
    def measured(self) -> list[Pair]:
        """Cells that were measured so far."""
        return [pair for pair in self.pairs if pair in self.cells]

    @property
    def cells_in_run(self) -> int:
        """Cells among which chance is corrected for: those of the other shards count."""
        return len(self.selected) + self.elsewhere

    @property
    def figures_in_run(self) -> int:
        """Gated figures among which chance is corrected for."""
        return figures_per_cell() * self.cells_in_run

    def nothing_measured(self, reason: str, *, is_open: bool) -> None:
        """Take note that a speed test measured nothing; see :class:`Unmeasured`."""
        self.unmeasured.append(Unmeasured(reason=reason, tests=1, open=is_open))

    def missing(self) -> str:
        """How far the run is, in words."""
        left = len(self.selected) - len(self.measured)
        return f"{len(self.measured)} of {len(self.selected)} pairs are measured, {left} to come."

    def selection(self) -> Selection:
        """Which cells and tests of all there are this run is about."""
        return Selection(
            pairs=tuple(map(str, self.selected)),
            of=len(self.pairs) + self.elsewhere,
            tests=tuple(self.ledger.tests()),
            left_out=self.left_out,
            shard=self._shard,
        )
