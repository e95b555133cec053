"""What a cell is measured with, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.config.overrides import Expect
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.quality.control import Control
from pytest_kvquant.quality.examiner import Examiner
from pytest_kvquant.quality.healthy import HealthyCell, HealthyGround
from pytest_kvquant.quality.quantizers import Quantizers
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.library import Library
from pytest_kvquant.session import diagnosing
from pytest_kvquant.session.judging import Judge
from pytest_kvquant.session.workloads import Workloads


class CellInputs(NamedTuple):
    """What every cell of a run is measured with."""

    task: Task
    source: ReferenceSource
    control: Control
    model: Model
    library: Library
    cells: int
    """Cells of the run: every gated figure of each counts against chance."""
    prober: diagnosing.Prober
    workloads: Workloads
    off_device: frozenset[Pair] = frozenset()
    """Pairs that are declared to leave their attention to the CPU."""
    kv_offload: bool = True
    """Whether caches go to the device that computes."""
    emulation: HealthyGround | None = None
    """What a healthy cell is emulated with; ``None`` between two builds, or switched off."""
    quantizers: Quantizers | None = None
    """Asked how the types of a pair round; ``None``: nobody is."""
    owned: frozenset[str] = frozenset()
    """Absolute gates for which the owner has budgets."""
    kl_packaged: bool = False
    """Whether the budget for mean KL comes from the package, not from ``[budgets]``."""
    same_pair: bool = False
    """Whether a cell is compared with the same pair, of another build."""
    examiner: Examiner | None = None
    """Examines kernels; ``None``: switched off."""
    expect: Mapping[str, Expect] = {}
    fail_fast: bool = False
    """Whether a cell is given up at its first failing gate."""

    def judge(self, pair: Pair, budgets: Budgets) -> Judge:
        """How the evidence of a pair is judged."""
        noise, identity = self.control.floor.kl, pair == REFERENCE
        emulated = self.emulation is not None or self.same_pair
        return Judge(budgets, self.owned, self.task.rules, noise, identity, emulated)

    def healthy(self, pair: Pair, budgets: Budgets) -> HealthyCell | None:
        """The emulation of a pair; of the reference itself, and between builds, there is none."""
        if self.emulation is None or pair == REFERENCE:
            return None
        over = budgets["kl_tail_over"]
        return HealthyCell(pair, self.emulation, self.source, self.control, over)


class Measured(NamedTuple):
    """A cell's record, and its per-token figures where there are any."""

    cell: Cell
    evidence: Evidence | None
    objection: str = ""
    """Why the cell does not count, in words: then nothing else was looked at."""
