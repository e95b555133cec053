"""The verdicts of a run's cells in the light of each other: chance among many, and twins."""

from __future__ import annotations

import msgspec

from pytest_kvquant.checks.answers import answers
from pytest_kvquant.checks.budgets import identical
from pytest_kvquant.checks.distinct import twins
from pytest_kvquant.checks.family import holm_exit
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.session.accepting import AcceptedCells, refusal
from pytest_kvquant.session.account import RunAccount, figures_per_cell
from pytest_kvquant.session.bounds import Bounds
from pytest_kvquant.session.cell_verdict import checked
from pytest_kvquant.session.speed import SpeedRun


class Verdicts:
    """Judges what was measured so far, and remembers what tests were told on the way."""

    def __init__(
        self, account: RunAccount, bounds: Bounds, speed: SpeedRun, baselines: AcceptedCells
    ) -> None:
        self._account, self._bounds = account, bounds
        self._speed, self._baselines = speed, baselines
        self._waived: list[tuple[Pair, Gate]] = []
        """Failing gates that may have been chance when their test asked."""
        self._distinct: list[Pair] = []
        """Cells that had no twin when their test asked."""

    def checked(self, pair: Pair) -> Cell:
        """The record of a measured cell in the light of the whole matrix.

        Failing gates that may be chance among so many are named in ``not_significant``; a cell that
        is bit-identical to another one with another census is ``aliased``.
        """
        own = self._account.cells[pair]
        failing = [gate for gate in own.gates if gate.verdict == "fail"]
        alone = tuple(gate.name for gate in failing if not self.stands(pair, gate))
        verdict = own.verdict
        if alone and len(alone) == len(failing) and verdict == "fail":
            facts = any(check.verdict == "fail" for check in own.checks)
            verdict = "fail" if facts else "inconclusive"
        own = msgspec.structs.replace(own, verdict=verdict)
        seen = checked(self._in_matrix(pair, own), "matrix").cell
        failed = {check.name for check in seen.checks[len(own.checks) :] if check.verdict == "fail"}
        if "distinct" in failed:
            verdict = "aliased"
        elif failed and verdict in ("pass", "inconclusive"):
            verdict = "fail"
        told = answers(own.gates, seen.checks, alone)
        return msgspec.structs.replace(
            seen,
            verdict=verdict,
            kernel=told.kernel,
            fitness=told.fitness,
            not_significant=alone,
            baseline=self._baselines.beside(self._account.cells[pair]),
        )

    def footprint(self, pair: Pair) -> Check | None:
        """The memory of a measured cell against its floor.

        ``None`` for a cell without a census, or that is not what its name says.
        """
        seen = checked(self._in_matrix(pair, self._account.cells[pair]), "matrix").cell
        return next((one for one in seen.checks if one.name == "footprint"), None)

    def ceiling(self, found: Ceiling) -> Ceiling:
        """The largest context of a pair against its floor."""
        return found.against(self._speed.floors(Pair.parse(found.pair), 0).context or 1)

    def stands(self, pair: Pair, gate: Gate) -> bool:
        """Whether a failing gate counts for the exit code, in the light of the whole matrix.

        Holm over every gated figure of the run; a cell not measured yet speaks for nothing. A gate
        that a test judged with budgets of its own takes the place of the cell's.
        """
        cells = self._account.cells
        owned = [
            (one, gate if one == pair and other.name == gate.name else other)
            for one in cells
            for other in cells[one].gates
        ]
        if (pair, gate) not in owned:
            owned.append((pair, gate))
        unmeasured = self._account.figures_in_run - figures_per_cell() * len(cells)
        kept = holm_exit([gate for _, gate in owned], unmeasured=max(0, unmeasured))
        return (pair, gate) in [one for one, keep in zip(owned, kept, strict=True) if keep]

    def stands_now(self, pair: Pair, gate: Gate) -> bool:
        """Whether a failing gate counts for the exit code whatever the cells to come show.

        Holm's first step: p <= alpha/m. What is left to its further steps is remembered, and told
        by :meth:`objections` if they keep it.
        """
        if gate.p_value <= gate.alpha / self._account.figures_in_run:
            return True
        self._waived.append((pair, gate))
        return False

    def distinct_so_far(self, pair: Pair) -> None:
        """Take note that a test found no twin of a cell among those measured until then."""
        self._distinct.append(pair)

    def objections(self) -> list[str]:
        """What cells measured later made of verdicts that were given before them, in sentences.

        Each fails the run. Nothing that failed before is taken back: what Holm's first step
        rejects, its further steps reject too.
        """
        found = [
            f"{pair}: {gate.name} fails after all, now that the whole matrix is known (Holm)"
            for pair, gate in self._waived
            if self.stands(pair, gate)
        ]
        cells = self._account.cells
        for pair in self._distinct:
            if same := twins(cells[pair], list(cells.values())):
                found.append(f"{pair} has the very same logits as {', '.join(same)}")
        return found

    def refusal(self, pair: Pair) -> str:
        """Why the figures of a cell must not be accepted, however much asked for; or nothing."""
        return refusal(self.checked(pair), self._account.ledger.open_of(str(pair)))

    def _in_matrix(self, pair: Pair, own: Cell) -> Subject:
        """A measured cell beside all others of the run."""
        return Subject(
            pair=pair,
            cell=own,
            budgets=identical(),
            compression_floor=self._speed.floors(pair, 0).compression,
            others=tuple(self._account.cells.values()),
            declared=self._bounds.declared(pair),
        )
