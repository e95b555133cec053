"""The steps of a cell in its process: quality by prefill, its other paths, other work."""

from __future__ import annotations

import msgspec

from pytest_kvquant.checks.declared import gates_as_declared
from pytest_kvquant.checks.healthy import off_by_little
from pytest_kvquant.checks.judging import figures_per_chunk
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError
from pytest_kvquant.matrix import REFERENCE
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.metrics import kl_profile
from pytest_kvquant.numerics.metrics import quality as quality_figures
from pytest_kvquant.quality import paths, steady
from pytest_kvquant.quality.control import all_shapes
from pytest_kvquant.quality.healthy import HealthyCell
from pytest_kvquant.results.cell import QualitySection
from pytest_kvquant.session.cell_inputs import CellInputs
from pytest_kvquant.session.cell_verdict import checked, is_settled
from pytest_kvquant.session.judging import Judge, JudgedGates


def with_quality(
    subject: Subject, evidence: Evidence, judge: Judge, healthy: HealthyCell | None
) -> Subject:
    """Gates and figures of the prefill path; a cell with a NaN has none."""
    if (found := evidence.first_non_finite()) is not None:
        chunk, row = found
        return _non_finite(subject, f"Logits of chunk {chunk}, scored token {row}, hold")
    judged = judge.prefill(evidence, healthy)  # a NaN cannot be judged: only from here on
    if healthy is not None and off_by_little(judged.counted):
        healthy.draw_again()
        judged = judge.prefill(evidence, healthy)
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


def with_paths(
    subject: Subject, worker: Worker, inputs: CellInputs, judge: Judge, healthy: HealthyCell | None
) -> Subject:
    """The decode path, greedy text and batch shapes, in the process of the cell."""
    control, vocabulary = inputs.control, inputs.task.vocabulary
    plan = control.plan
    if plan.decoded.size:
        subject = _with_decode(subject, worker, inputs, judge, healthy)
        if not subject.cell.gates:
            return subject
    if plan.continued:
        for _ in worker.run_script(paths.trajectory_steps(plan), vocabulary):
            pass
        text = paths.trajectory(worker.chosen, control.chosen, plan.continued)
        cell = msgspec.structs.replace(subject.cell, trajectory=text)
        subject = checked(subject._replace(cell=cell), "trajectory")
    memory = steady.measure(worker, subject.pair, inputs.task.shape, subject.log)
    shapes = all_shapes(worker, inputs.task, plan)
    cell = msgspec.structs.replace(subject.cell, shapes=shapes, memory=memory)
    return checked(subject._replace(cell=cell, shapes=shapes), "shapes")


def with_workloads(subject: Subject, worker: Worker, inputs: CellInputs) -> Subject:
    """Other work; last, because recall makes the context again in another length."""
    compared = subject.pair if inputs.same_pair else REFERENCE
    return checked(inputs.workloads.add(subject, worker, compared, inputs.cells), "workloads")


def _with_decode(
    subject: Subject, worker: Worker, inputs: CellInputs, judge: Judge, healthy: HealthyCell | None
) -> Subject:
    control, plan, cell = inputs.control, inputs.control.plan, subject.cell
    assert cell.quality is not None
    over, band = subject.budgets["kl_tail_over"], control.floor.tie_band
    evidence = Evidence(*plan.decoded.shape, tail_over=over, tie_band=band)
    judged = JudgedGates((), ())
    for stop in plan.looks:
        try:
            control.decode.ensure(stop)
        except CellError:
            break  # of the first look it has been there since the run began
        if healthy is not None:
            healthy.ensure_decode(plan, stop)
        rows, vocabulary = control.decode.rows, inputs.task.vocabulary
        paths.decode_evidence(worker, plan, rows, vocabulary, evidence, stop)
        if not evidence.finite:
            return _non_finite(subject, "Logits by the decode path hold")
        judged = judge.decode(evidence, healthy, plan.looks)
        open_ones = judged.decidable
        if not open_ones.counted or is_settled(open_ones, inputs):
            break
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
