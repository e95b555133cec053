"""One cell: what it is, its quality, its other paths, as one record."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.checks.placement import placement
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.config.expectations import declared_failures
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError, CellSpoilt
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality import prefill
from pytest_kvquant.results.cell import Cell, Timing, Verdict
from pytest_kvquant.session import diagnosing
from pytest_kvquant.session.cell_inputs import CellInputs, Measured
from pytest_kvquant.session.cell_steps import with_paths, with_quality, with_workloads
from pytest_kvquant.session.cell_verdict import checked, is_hopeless, is_settled, judged
from pytest_kvquant.session.identity import identify
from pytest_kvquant.session.kernels import with_kernels


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
                tail_over=budgets["kl_tail_over"],
                tie_band=inputs.control.floor.tie_band,
                settled=lambda seen: is_settled(judge.prefill(seen, healthy), inputs),
                on_chunk=on_chunk,
                on_step=healthy.ensure if healthy is not None else (lambda *_range: None),
            )
            drawn = time.perf_counter()
            if inputs.quantizers is not None:
                asked = inputs.quantizers.of(pair)
                cell = msgspec.structs.replace(subject.cell, quantizers=asked)
                subject = subject._replace(cell=cell)
            with part("decisions"):
                subject = with_quality(subject, evidence, judge, healthy)
            if subject.cell.gates and not is_hopeless(subject.cell.gates, inputs):
                subject = subject._replace(kl_scale=judge.typical_kl(healthy))
                with part("paths"):
                    subject = with_paths(subject, worker, inputs, judge, healthy)
            if subject.cell.gates:
                with part("workloads"):
                    subject = with_workloads(subject, worker, inputs)
            told = None if healthy is None else healthy.record()
            cell = msgspec.structs.replace(subject.cell, healthy=told)
            subject = subject._replace(cell=cell)
            ended = time.perf_counter()
        if objection := proof():
            return Measured(subject.cell, None, objection)
        if subject.cell.gates:
            with part("kernels"):
                subject = checked(with_kernels(subject, inputs.examiner), "kernels")
            if inputs.examiner is not None and (objection := proof()):
                return Measured(subject.cell, None, objection)
    except CellSpoilt as error:
        return Measured(subject.cell, None, str(error))
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
    return Measured(msgspec.structs.replace(judged(subject.cell), timing=timing), evidence)


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
        gpu_layers=-1 if inputs.model.holds(inputs.task.gpu_layers) else inputs.task.gpu_layers,
        kv_offload=inputs.kv_offload,
        off_device=pair in inputs.off_device,
        reference_memory=None if pair == REFERENCE else inputs.control.memory,
        declared=declared_failures(pair, inputs.library.device, inputs.expect),
        kl_owned="kl_mean" in inputs.owned,
        kl_packaged=inputs.kl_packaged,
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
        ran = worker.operations(subject.pair, threads=inputs.task.shape.threads)
        placed = msgspec.structs.replace(placed, operations=ran)
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
