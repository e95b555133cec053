"""One cell: what it is, its quality, its other paths, as one record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import msgspec

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.answers import answers
from pytest_kvquant.checks.declaration import Needs
from pytest_kvquant.checks.declared import as_declared, gates_as_declared
from pytest_kvquant.checks.family import settled
from pytest_kvquant.checks.judging import figures_per_chunk
from pytest_kvquant.checks.kernel_names import KERNEL_GATES
from pytest_kvquant.checks.off_device import NAME as OFF_DEVICE
from pytest_kvquant.checks.placement import placement
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.config.budgets import Budgets
from pytest_kvquant.config.expectations import declared_failures
from pytest_kvquant.config.settings import Expect
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.metrics import kl_profile
from pytest_kvquant.numerics.metrics import quality as quality_figures
from pytest_kvquant.quality import paths, prefill, steady
from pytest_kvquant.quality.control import Control, all_shapes
from pytest_kvquant.quality.examiner import Examiner
from pytest_kvquant.quality.healthy import HealthyCell, HealthyGround
from pytest_kvquant.quality.quantizers import Quantizers
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.cell import Cell, QualitySection, Timing, Verdict
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.results.library import Library
from pytest_kvquant.results.operations import from_paths
from pytest_kvquant.session import diagnosing
from pytest_kvquant.session.identity import identify
from pytest_kvquant.session.judging import Judge, JudgedGates
from pytest_kvquant.session.kernels import with_kernels
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
    emulation: HealthyGround | None = None
    """What a healthy cell is emulated with; ``None`` between two builds."""
    quantizers: Quantizers | None = None
    """Asked how the types of a pair round; ``None``: nobody is."""
    owned: frozenset[str] = frozenset()
    """Absolute gates for which the owner has budgets."""
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
        return Judge(budgets, self.owned, self.task.rules, noise, identity)

    def healthy(self, pair: Pair, budgets: Budgets) -> HealthyCell | None:
        """The emulation of a pair; of the reference itself, and between builds, there is none."""
        if self.emulation is None or pair == REFERENCE:
            return None
        over = budgets.kl_tail_over
        return HealthyCell(pair, self.emulation, self.source, self.control, over)


class Measured(NamedTuple):
    """A cell's record, and its per-token figures where there are any."""

    cell: Cell
    evidence: Evidence | None
    objection: str = ""
    """Why the cell does not count, in words: then nothing else was looked at."""


def attempt(
    hired: AbstractContextManager[Worker],
    pair: Pair,
    budgets: Budgets,
    expected: str | None,
    inputs: CellInputs,
    on_chunk: Callable[[int], None],
    proof: Callable[[], str] = lambda: "",
) -> Measured:
    """Measure one cell in one process; its death is a verdict, not an exception.

    Args:
        hired: the worker, once it is entered.
        expected: the pair that the configuration says it is substituted by, if any.
        on_chunk: told how many chunks are complete.
        proof: why what its worker has measured does not count, in words; empty if it does.

    Raises:
        RunRefused: the reference cannot be stored.
    """
    begun = time.perf_counter()
    subject = _subject(pair, budgets, expected, inputs)
    part, judge = inputs.task.workers.timesheet.part, inputs.judge(pair, budgets)
    healthy = inputs.healthy(pair, budgets)
    try:
        with hired as worker:
            inputs.task.open_cell(worker, pair)
            opened = time.perf_counter()
            with part("census"):
                subject = _identified(subject, worker, inputs)
            identified = time.perf_counter()
            if subject.cell.checks[0].verdict == "fail":
                return Measured(_refused(subject.cell), None)
            with part("probe"):
                subject = _with_contents(subject, worker, inputs.prober)
            probed = time.perf_counter()
            evidence = prefill.measure(
                worker,
                inputs.task,
                inputs.source,
                budgets,
                tie_band=inputs.control.floor.tie_band,
                settled=lambda seen: _settled(judge.prefill(seen, healthy), inputs),
                on_chunk=on_chunk,
                on_step=healthy.ensure if healthy is not None else (lambda *_range: None),
            )
            drawn = time.perf_counter()
            if inputs.quantizers is not None:
                asked = inputs.quantizers.of(pair)
                cell = msgspec.structs.replace(subject.cell, quantizers=asked)
                subject = subject._replace(cell=cell)
            with part("decisions"):
                subject = _with_quality(subject, evidence, judge, healthy)
            if subject.cell.gates and not _hopeless(subject.cell.gates, inputs):
                subject = subject._replace(kl_scale=judge.typical_kl(healthy))
                with part("paths"):
                    subject = _with_paths(subject, worker, inputs, judge, healthy)
            if subject.cell.gates:
                with part("workloads"):
                    subject = _with_workloads(subject, worker, inputs)
            told = None if healthy is None else healthy.record()
            cell = msgspec.structs.replace(subject.cell, healthy=told)
            subject = subject._replace(cell=cell)
            ended = time.perf_counter()
        if objection := proof():
            return Measured(subject.cell, None, objection)
        if subject.cell.gates:
            with part("kernels"):
                subject = checked(with_kernels(subject, inputs.examiner), "kernels")
    except CellError as error:
        return Measured(
            msgspec.structs.replace(
                subject.cell, verdict=error.verdict, message=str(error), log=error.log, gates=()
            ),
            None,
        )
    timing = Timing(
        prefill=(opened - begun) + (drawn - probed),
        paths=(identified - opened) + (ended - drawn),
        decode=worker.decode_seconds,
    )
    return Measured(msgspec.structs.replace(_judged(subject.cell), timing=timing), evidence)


def _subject(pair: Pair, budgets: Budgets, expected: str | None, inputs: CellInputs) -> Subject:
    return Subject(
        pair=pair,
        cell=Cell(pair=str(pair), verdict="pass"),
        budgets=budgets,
        floor=inputs.control.floor,
        quantized=any(inputs.library.types[name].block > 1 for name in pair),
        same_pair=inputs.same_pair,
        expected=expected,
        gpus=tuple(device.name for device in inputs.library.gpus),
        gpu_layers=inputs.task.gpu_layers,
        off_device=pair in inputs.off_device,
        reference_memory=None if pair == REFERENCE else inputs.control.memory,
        declared=declared_failures(pair, inputs.library.device, inputs.expect),
        kl_owned="kl_mean" in inputs.owned,
    )


def checked(subject: Subject, *needs: Needs) -> Subject:
    """The subject with the checks of its cell that can be decided once this is measured."""
    found = [one.decide(subject) for one in registry.checks_that_need(*needs)]
    judged = [as_declared(check, subject.declared) for check in found if check is not None]
    checks = (*subject.cell.checks, *judged)
    return subject._replace(cell=msgspec.structs.replace(subject.cell, checks=checks))


def figures_per_cell() -> int:
    """Gated figures of one cell: each counts against chance."""
    return len(registry.gates()) + len(KERNEL_GATES)


def _settled(judged: JudgedGates, inputs: CellInputs) -> bool:
    """Whether more chunks could no longer change what any gate does to the exit code."""
    if _hopeless(judged.counted, inputs):
        return True
    figures_in_run = figures_per_cell() * inputs.cells
    decided = [settled(gate, figures_in_run) for gate in judged.counted]
    return bool(decided) and all(decided)


def _hopeless(gates: Sequence[Gate], inputs: CellInputs) -> bool:
    """Whether a cell has failed for good and was asked to be given up then."""
    figures_in_run = figures_per_cell() * inputs.cells
    return inputs.fail_fast and any(
        gate.verdict == "fail" and settled(gate, figures_in_run) for gate in gates
    )


def _identified(subject: Subject, worker: Worker, inputs: CellInputs) -> Subject:
    """Take the census and look where the cache lies, before anything is measured."""
    found = identify(
        subject.pair,
        worker.census(),
        inputs.control.census,
        inputs.model,
        inputs.library,
        subject.expected,
        same_pair=inputs.same_pair,
    )
    log = worker.log_text()
    placed = placement(log)
    if subject.all_on_gpu:
        paths_of = worker.operations(subject.pair, threads=inputs.task.shape.threads)
        placed = msgspec.structs.replace(placed, operations=from_paths(paths_of))
    cell = msgspec.structs.replace(subject.cell, census=found.record, placement=placed)
    subject = subject._replace(
        cell=cell, log=log, explanation=found.explanation, effective=found.effective
    )
    subject = checked(subject, "census")
    if subject.expected is not None and subject.cell.checks[0].verdict == "pass":
        cell = msgspec.structs.replace(subject.cell, census=found.as_declared())
        subject = subject._replace(cell=cell)
    return subject


def _refused(cell: Cell) -> Cell:
    """A cell that is not what its name says: nothing is measured under a false name."""
    assert cell.census is not None
    verdict: Verdict = "substituted" if cell.census.kind == "substituted" else "fail"
    return msgspec.structs.replace(cell, verdict=verdict, message=cell.checks[0].text)


def _with_contents(subject: Subject, worker: Worker, prober: diagnosing.Prober) -> Subject:
    """What the cache holds, against the reference quantizer, where every cell is probed."""
    if not prober.every:
        return subject
    diagnosis = prober.short(subject.pair, worker)
    cell = msgspec.structs.replace(subject.cell, diagnosis=diagnosis)
    return checked(subject._replace(cell=cell), "contents")


def _with_quality(
    subject: Subject, evidence: Evidence, judge: Judge, healthy: HealthyCell | None
) -> Subject:
    if (found := evidence.first_non_finite()) is not None:
        chunk, row = found
        return _non_finite(subject, f"Logits of chunk {chunk}, scored token {row}, hold")
    judged = judge.prefill(evidence, healthy)  # a NaN cannot be judged: only from here on
    cell = msgspec.structs.replace(
        subject.cell,
        gates=gates_as_declared(judged.counted, subject.declared),
        advised=judged.advised,
        quality=QualitySection(prefill=quality_figures(evidence.tokens())),
        per_chunk={
            name: tuple(values.tolist()) for name, values in figures_per_chunk(evidence).items()
        },
        digests=evidence.digests(),
        profile=kl_profile(evidence.tokens().kl),
    )
    return checked(subject._replace(cell=cell), "prefill")


def _with_paths(
    subject: Subject, worker: Worker, inputs: CellInputs, judge: Judge, healthy: HealthyCell | None
) -> Subject:
    """The decode path, greedy text and batch shapes, in the process of the cell."""
    control, vocabulary = inputs.control, inputs.task.vocabulary
    plan = control.plan
    if plan.decoded.size:
        if healthy is not None:
            healthy.ensure_decode(plan)
        subject = _with_decode(subject, worker, inputs, judge, healthy)
        if not subject.cell.gates:
            return subject
    if plan.continued:
        for _ in worker.run_script(paths.trajectory_steps(plan), vocabulary, rows=1):
            pass
        text = paths.trajectory(worker.chosen, control.chosen, plan.continued)
        cell = msgspec.structs.replace(subject.cell, trajectory=text)
        subject = checked(subject._replace(cell=cell), "trajectory")
    memory = steady.measure(worker, subject.pair, inputs.task.shape, subject.log)
    shapes = all_shapes(worker, inputs.task, plan)
    cell = msgspec.structs.replace(subject.cell, shapes=shapes, memory=memory)
    return checked(subject._replace(cell=cell, shapes=shapes), "shapes")


def _with_workloads(subject: Subject, worker: Worker, inputs: CellInputs) -> Subject:
    """Other work; last, because recall makes the context again in another length."""
    compared = subject.pair if inputs.same_pair else REFERENCE
    return checked(inputs.workloads.add(subject, worker, compared, inputs.cells), "workloads")


def _with_decode(
    subject: Subject, worker: Worker, inputs: CellInputs, judge: Judge, healthy: HealthyCell | None
) -> Subject:
    control = inputs.control
    evidence = paths.decode_evidence(
        worker,
        control.plan,
        control.decode,
        inputs.task.vocabulary,
        tail_over=subject.budgets.kl_tail_over,
        tie_band=control.floor.tie_band,
    )
    if not evidence.finite:
        return _non_finite(subject, "Logits by the decode path hold")
    cell = subject.cell
    assert cell.quality is not None
    judged = judge.decode(evidence, healthy)
    figures = quality_figures(evidence.tokens())
    cell = msgspec.structs.replace(
        cell,
        gates=(*cell.gates, *gates_as_declared(judged.counted, subject.declared)),
        advised=(*cell.advised, *judged.advised),
        quality=msgspec.structs.replace(cell.quality, decode=figures),
    )
    return checked(subject._replace(cell=cell), "decode")


def _non_finite(subject: Subject, what: str) -> Subject:
    cell = msgspec.structs.replace(
        subject.cell, verdict="non-finite", gates=(), message=f"{what} a NaN or an infinity."
    )
    return subject._replace(cell=cell)


def _judged(cell: Cell) -> Cell:
    """The cell with the verdict that its gates and checks amount to."""
    if not cell.gates:
        return cell
    failing = {check.name for check in cell.checks if check.verdict == "fail"}
    verdicts = {gate.verdict for gate in cell.gates}
    verdict: Verdict = "pass"
    if "active" in failing:
        verdict = "inactive"
    elif OFF_DEVICE in failing:
        verdict = "off-device"
    elif failing or "fail" in verdicts:
        verdict = "fail"
    elif "inconclusive" in verdicts:
        verdict = "inconclusive"
    told = answers(cell.gates, cell.checks)
    return msgspec.structs.replace(cell, verdict=verdict, kernel=told.kernel, fitness=told.fitness)
