"""Verdicts as test outcomes: what a gate decided becomes a pass, a failure or a skip, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest

from pytest_kvquant import format
from pytest_kvquant.checks import registry
from pytest_kvquant.checks.gate_text import failure_text
from pytest_kvquant.checks.judging import judge_figures, owned_gates
from pytest_kvquant.checks.kernel_names import KERNEL_GATES
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.matrix import REFERENCE
from pytest_kvquant.numerics.metrics import Quality
from pytest_kvquant.outcomes.mark import read_mark
from pytest_kvquant.report.links import link
from pytest_kvquant.report.properties import properties
from pytest_kvquant.report.repeat import command as repeat_command
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.gate import Gate

if TYPE_CHECKING:
    from pytest_kvquant.matrix import Pair
    from pytest_kvquant.session.run import Session


class CellQuality:
    """The quality of one cell, as a test sees it."""

    def __init__(self, session: Session, pair: Pair, node: pytest.Item) -> None:
        self._session, self._pair, self._node = session, pair, node

    @property
    def cell(self) -> Cell:
        """The whole record of the cell."""
        return self._session.measure(self._pair)

    @property
    def figures(self) -> Quality:
        """The quality figures by the prefill path; fails the test where there are none."""
        self.require_measured()
        section = self.cell.quality
        assert section is not None
        return section.prefill

    def require_measured(self) -> None:
        """Fail where the cell could not be measured; later tests of the cell then skip."""
        __tracebackhide__ = True
        cell = self.cell
        if self._session.account.broken:
            pytest.exit(self._session.account.broken, returncode=pytest.ExitCode.TESTS_FAILED)
        if cell.gates:
            return
        if cell.excused:
            pytest.skip(f"{self._pair}: {cell.verdict}. {cell.message}")
        if self._pair in self._session.account.announced:
            pytest.skip(f"{self._pair} was not measured: {cell.verdict}")
        self._session.account.announced.add(self._pair)
        log = f"\n\nThe end of the library's log:\n{cell.log}" if cell.log else ""
        log += f"\n\n{cell.traceback}" if cell.traceback else ""
        pytest.fail(
            f"{self._pair}: {cell.verdict}. {cell.message}{log}\n\n{self._conditions()}",
            pytrace=False,
        )

    def check(self, name: str) -> None:
        """Pass, fail or skip by the verdict of one gate.

        Args:
            name: ``kl_mean``, ``kl_tail``, ``ln_ppl_ratio``, ``top1_flips`` or
                ``decode_kl_mean``; the ratio of the same figure to the healthy cell's is meant
                too, and where the owner has no budget, it alone. A budget of the test's own marker
                is asserted by itself.
        """
        __tracebackhide__ = True
        self.require_measured()
        set_here = name in owned_gates(read_mark(self._node).budgets)
        names = (name,) if set_here else (KERNEL_GATES.get(name, ""), name)
        gates = [gate for gate in self._gates() if gate.name in names]
        if not gates:
            self._tell_missing(name)
        for gate in gates:
            self._node.user_properties += properties(gate, self.figures)
        for verdict in ("fail", "inconclusive"):
            for gate in gates:
                if gate.verdict == verdict:
                    self._tell(gate)

    def _tell(self, gate: Gate) -> None:
        """Fail, or skip where chance may explain it or nothing is decided yet."""
        __tracebackhide__ = True
        suspect = self._suspect()
        text = f"{failure_text(gate, str(self._pair))}\n{suspect}{self._conditions(gate.name)}"
        if gate.verdict == "inconclusive" and not self._session.settings.strict:
            pytest.skip(_first_line(gate, self._pair))
        chance = gate.verdict == "fail" and not self._session.verdicts.stands_now(self._pair, gate)
        if chance and not self._session.settings.strict:
            pytest.skip(
                f"{_first_line(gate, self._pair)}; alone this would fail, among all gates of "
                "the run it may be chance; the end of the run has the last word"
            )
        pytest.fail(text, pytrace=False)

    def _gates(self) -> tuple[Gate, ...]:
        """The gates of the cell; judged again where the test's marker has budgets of its own."""
        own, session, cell = read_mark(self._node).budgets, self._session, self.cell
        if not own:
            return cell.gates
        seen = {name: np.asarray(values) for name, values in cell.per_chunk.items()}
        judged = judge_figures(
            seen,
            session.task.shape.scored,
            {**session.bounds.budgets(self._pair), **own},
            session.task.rules,
        )
        again = {gate.name: gate for gate in judged}
        held = tuple(again.get(gate.name, gate) for gate in cell.gates)
        names = {gate.name for gate in held}
        set_here = owned_gates(own) & again.keys()
        return (*held, *(again[name] for name in sorted(set_here - names)))

    def check_fact(self, name: str) -> None:
        """Pass, fail or skip by one check of what the cell is and whether its paths agree.

        Args:
            name: see :class:`pytest_kvquant.results.cell.Check`.
        """
        __tracebackhide__ = True
        self.require_measured()
        cell = self._session.checked(self._pair)
        check = next((check for check in cell.checks if check.name == name), None)
        if check is None:
            self._tell_missing(name)
        if name == "distinct" and check.verdict == "pass":
            self._session.verdicts.distinct_so_far(self._pair)
        if check.verdict == "fail":
            suspect = self._suspect()
            text = f"{self._pair}: {check.text}\n{suspect}{self._conditions(name)}"
            pytest.fail(text, pytrace=False)
        if check.verdict != "pass" and self._session.settings.strict:
            text = f"{self._pair}: {check.text}: undecided, and --kv-strict\n"
            pytest.fail(f"{text}{self._conditions(name)}", pytrace=False)
        if check.verdict != "pass":
            pytest.skip(f"{self._pair}: {check.text}")

    def _tell_missing(self, name: str) -> NoReturn:
        """Skip a gate or a check that is not there, with why; what was asked for fails if that is
        to be strict."""
        __tracebackhide__ = True
        settings = self._session.settings
        if settings.fail_fast and self.cell.verdict == "fail":
            pytest.skip(f"{name} was not measured: {self._pair} had failed (--kv-fail-fast)")
        if words := never_made(name, self.cell, settings):
            (pytest.fail if settings.strict else pytest.skip)(f"{self._pair}: {words}")
        pytest.skip(f"{name} was switched off, or says nothing of {self._pair}")

    def _suspect(self) -> str:
        """The kernel to look at, or why none is named; a paragraph of the failure text."""
        diagnosis = self.cell.diagnosis
        if diagnosis is None or diagnosis.verdict == "healthy":
            return ""
        lines = [f"{diagnosis.sentence}", *(f"fits: {line}" for line in diagnosis.fits)]
        lines += [f"but: {line}" for line in diagnosis.against]
        return "".join(
            f"  {'suspect ' if not number else '        '}  {line}\n"
            for number, line in enumerate(lines)
        )

    def _conditions(self, about: str = "") -> str:
        session = self._session
        task = session.task
        again = repeat_command(session.account.invocation, self._pair)
        other = session.ready.other_build
        against = f"  against   {other.build}, {other.path}\n" if other else ""
        report = session.settings.report
        page = f"\n  page      {link(str(report), str(self._pair), about)}" if report else ""
        corpus = session.ready.texts.corpus
        return (
            f"  measured  {session.model.name} on {corpus.name}, {task.shape.ctx} tokens "
            f"per chunk, {session.library.build}, {session.library.computing}, "
            f"{format.several(task.shape.threads, 'thread')}\n"
            f"{against}"
            f"  again     {again}"
            + (f"\n  about     kvquant explain {about}" if about else "")
            + page
        )


def _first_line(gate: Gate, pair: Pair) -> str:
    first = failure_text(gate, str(pair)).splitlines()[0]
    needed = f"; about {gate.chunks_needed} chunks would decide" if gate.chunks_needed else ""
    return first + needed


def never_made(name: str, cell: Cell, settings: Settings) -> str:
    """What was asked for of a measured cell and is not there, in words; empty where it was not
    asked for, or says nothing of this cell.

    Args:
        name: of a gate or a check.
    """
    found = registry.find(name)
    if found is None:
        return ""
    missing = {
        "contents": settings.probe == "always" and cell.diagnosis is None
        and cell.pair != str(REFERENCE),
        "decode": settings.decode > 0 and not any(one.name == name for one in cell.gates),
        "trajectory": settings.trajectory > 0 and cell.trajectory is None,
        "shapes": not cell.shapes,
        "kernels": settings.coverage_level != "off" and cell.kernels is None,
    }  # fmt: skip
    return f"{name} was asked for and not measured" if missing.get(found.needs) else ""
