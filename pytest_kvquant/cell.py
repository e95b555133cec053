"""One cell in one process: what it is, its quality, its other paths, as one record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from pytest_kvquant import checks, diagnosing, geometry, paths, quality
from pytest_kvquant.budgets import Budgets
from pytest_kvquant.control import Control, all_shapes
from pytest_kvquant.engine.client import Worker
from pytest_kvquant.errors import CellError
from pytest_kvquant.expectations import held_as
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.model import Model
from pytest_kvquant.numerics import gates
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.gates import Gate, Rules
from pytest_kvquant.numerics.metrics import kl_profile
from pytest_kvquant.numerics.metrics import quality as quality_figures
from pytest_kvquant.report import result as records
from pytest_kvquant.settings import MIXED

GATES_PER_CELL = 5


class Ground(NamedTuple):
    """What every cell of a run stands on."""

    task: quality.Task
    source: quality.ReferenceSource
    control: Control
    model: Model
    library: records.Library
    cells: int
    """Cells of the run: every gated figure of each counts against chance."""
    prober: diagnosing.Prober
    own_pair: bool = False
    """Whether a cell is compared with its own pair, of another build."""


class Measured(NamedTuple):
    """A cell's record, and its per-token figures where there are any."""

    cell: records.Cell
    evidence: Evidence | None


def measure(
    pair: Pair,
    budgets: Budgets,
    expected: str | None,
    ground: Ground,
    on_chunk: Callable[[int], None],
) -> Measured:
    """Measure one cell in a fresh process; its death is a verdict, not an exception.

    Args:
        expected: the pair that the configuration says it is substituted by, if any.
        on_chunk: told how many chunks are complete.

    Raises:
        RunRefused: the reference cannot be stored.
    """
    begun = time.perf_counter()
    partial = records.Cell(pair=str(pair), verdict="pass")
    worker = Worker(ground.task.engine)
    try:
        with worker:
            ground.task.open_cell(worker, pair)
            opened = time.perf_counter()
            partial = _identify(partial, pair, worker, expected, ground)
            identified = time.perf_counter()
            if partial.checks[0].verdict == "fail":
                return Measured(_refused(partial), None)
            partial = _add_contents(partial, pair, worker, ground.prober)
            probed = time.perf_counter()
            evidence = quality.measure(
                worker,
                ground.task,
                ground.source,
                budgets,
                tie_band=ground.control.floor.tie_band,
                figures_in_run=GATES_PER_CELL * ground.cells,
                on_chunk=on_chunk,
            )
            drawn = time.perf_counter()
            partial = _add_quality(partial, pair, evidence, budgets, ground)
            if partial.gates:
                partial = _add_paths(partial, worker, budgets, ground)
            ended = time.perf_counter()
    except CellError as error:
        return Measured(
            msgspec.structs.replace(
                partial, verdict=error.verdict, message=str(error), log=error.log, gates=()
            ),
            None,
        )
    timing = records.Timing(
        wall=time.perf_counter() - begun,
        prefill=(opened - begun) + (drawn - probed),
        paths=(identified - opened) + (ended - drawn),
        decode=worker.decode_seconds,
    )
    judged = msgspec.structs.replace(_judged(partial), timing=timing)
    if judged.verdict in ("fail", "non-finite"):
        explained = diagnosing.explain(ground.prober, pair, judged.diagnosis)
        judged = msgspec.structs.replace(judged, diagnosis=explained)
    return Measured(judged, evidence)


def _identify(
    cell: records.Cell, pair: Pair, worker: Worker, expected: str | None, ground: Ground
) -> records.Cell:
    """Take the census and look where the cache lies, before anything is measured."""
    log = worker.log_text()
    placed = checks.placement(log)
    census = worker.census()
    types = msgspec.to_builtins(ground.library.types)
    expectation = geometry.expect(ground.model, pair, types)
    explanation = geometry.explain(census, expectation, types)
    record = records.CensusRecord(
        layers=tuple(
            records.Layer(k=layer.k_type, v=layer.v_type, k_row=layer.k_row, v_row=layer.v_row)
            for cache in census.caches
            for layer in cache.layers
        ),
        bytes_per_token=census.bytes_per_token,
        expected_bytes_per_token=expectation.bytes_per_token,
        compression=expectation.compression,
        kind=explanation.kind,
        text=explanation.text,
        understood=census.problem is None and _geometry_known(pair, ground, types),
    )
    if explanation.kind == "differs" and not record.understood:
        explanation = explanation._replace(kind="unreadable")
    gpus = [device.name for device in ground.library.gpus]
    found = (
        checks.check_types(explanation, effective_pair(record, pair, expected), expected, log),
        checks.check_placement(placed, gpus, ground.task.gpu_layers),
    )
    if expected is not None and found[0].verdict == "pass":
        record = _as_declared(record, geometry.held_bytes(census, expectation, types))
    return msgspec.structs.replace(cell, census=record, placement=placed, checks=found)


def _as_declared(census: records.CensusRecord, expected: int | None) -> records.CensusRecord:
    """The census of a declared substitution, with the size of what it is declared to hold.

    Args:
        expected: bytes per token; ``None`` where they cannot be told.
    """
    if expected is None:
        return msgspec.structs.replace(census, understood=False)
    of_f16 = census.expected_bytes_per_token * census.compression
    return msgspec.structs.replace(
        census, expected_bytes_per_token=expected, compression=of_f16 / expected
    )


def _geometry_known(pair: Pair, ground: Ground, types: geometry.Types) -> bool:
    """Whether the control is as the header says: else it is the header that is not understood."""
    compared = pair if ground.own_pair else REFERENCE
    expectation = geometry.expect(ground.model, compared, types)
    return geometry.explain(ground.control.census, expectation, types).kind == "agree"


def effective_pair(census: records.CensusRecord, pair: Pair, expected: str | None) -> str:
    """The pair that the cache holds; ``mixed`` where layers differ, empty where none is known."""
    held = held_as(((layer.k, layer.v) for layer in census.layers), pair, expected)
    return MIXED if len(held) > 1 else "".join(map(str, held))


def _refused(cell: records.Cell) -> records.Cell:
    """A cell that is not what its name says: nothing is measured under a false name."""
    assert cell.census is not None
    verdict: records.Verdict = "substituted" if cell.census.kind == "substituted" else "fail"
    return msgspec.structs.replace(cell, verdict=verdict, message=cell.checks[0].text)


def _add_contents(
    cell: records.Cell, pair: Pair, worker: Worker, prober: diagnosing.Prober
) -> records.Cell:
    """What the cache holds, against the reference quantizer, where every cell is probed."""
    if not prober.every:
        return cell
    diagnosis = prober.short(pair, worker)
    found = (*cell.checks, checks.check_contents(diagnosis))
    return msgspec.structs.replace(cell, checks=found, diagnosis=diagnosis)


def _add_quality(
    cell: records.Cell, pair: Pair, evidence: Evidence, budgets: Budgets, ground: Ground
) -> records.Cell:
    if (place := evidence.first_non_finite()) is not None:
        chunk, row = place
        return msgspec.structs.replace(
            cell,
            verdict="non-finite",
            message=f"Logits of chunk {chunk}, scored token {row}, hold a NaN or an infinity.",
        )
    floor = ground.control.floor.kl
    figures = quality_figures(evidence.tokens())
    quantized = any(ground.library.types[name].block > 1 for name in pair)
    found = [checks.check_measurable(budgets.kl_mean, floor)]
    if not ground.own_pair:
        found.append(checks.check_active(pair, quantized, figures.kl_mean, floor))
    return msgspec.structs.replace(
        cell,
        gates=quality.judge(evidence, budgets, ground.task.rules),
        checks=(*cell.checks, *found),
        quality=records.QualitySection(prefill=figures),
        per_chunk={
            name: tuple(values.tolist()) for name, values in evidence.per_chunk()._asdict().items()
        },
        digests=evidence.digests(),
        profile=kl_profile(evidence.tokens().kl),
    )


def _add_paths(
    cell: records.Cell, worker: Worker, budgets: Budgets, ground: Ground
) -> records.Cell:
    """The decode path, greedy text and batch shapes, in the process of the cell."""
    control, vocabulary = ground.control, ground.task.vocabulary
    plan = control.plan
    if plan.decoded.size:
        evidence = paths.decode_evidence(
            worker,
            plan,
            control.decode,
            vocabulary,
            tail_over=budgets.kl_tail_over,
            tie_band=control.floor.tie_band,
        )
        if not evidence.finite:
            return msgspec.structs.replace(
                cell,
                verdict="non-finite",
                gates=(),
                message="Logits by the decode path hold a NaN or an infinity.",
            )
        assert cell.quality is not None
        figures = quality_figures(evidence.tokens())
        cell = msgspec.structs.replace(
            cell,
            gates=(*cell.gates, _decode_gate(evidence, budgets)),
            quality=msgspec.structs.replace(cell.quality, decode=figures),
        )
    found = list(cell.checks)
    if plan.continued:
        for _ in worker.play(paths.trajectory_steps(plan), vocabulary, rows=1):
            pass
        text = paths.trajectory(worker.chosen, control.chosen, plan.continued)
        found.append(
            checks.check_trajectory(text.agreement, budgets.trajectory, text.first_divergence)
        )
        cell = msgspec.structs.replace(cell, trajectory=text)
    shapes = all_shapes(worker, ground.task, plan)
    found += checks.check_shapes(shapes, control.floor.shapes, budgets.kl_mean)
    return msgspec.structs.replace(cell, shapes=shapes, checks=tuple(found))


def _decode_gate(evidence: Evidence, budgets: Budgets) -> Gate:
    seen = np.asarray(evidence.per_chunk().kl)
    rules = Rules(cap=evidence.complete, early=False)
    gate = gates.judge_kl_mean(seen, budgets.decode_kl_mean, rules)
    return msgspec.structs.replace(gate, name="decode_kl_mean")


def _judged(cell: records.Cell) -> records.Cell:
    """The cell with the verdict that its gates and checks amount to."""
    if not cell.gates:
        return cell
    failing = {check.name for check in cell.checks if check.verdict == "fail"}
    verdicts = {gate.verdict for gate in cell.gates}
    verdict: records.Verdict = "pass"
    if "active" in failing:
        verdict = "inactive"
    elif failing or "fail" in verdicts:
        verdict = "fail"
    elif "inconclusive" in verdicts:
        verdict = "inconclusive"
    return msgspec.structs.replace(cell, verdict=verdict)


def twins(cell: records.Cell, others: list[records.Cell]) -> list[str]:
    """Cells with bit-identical logits, as far as both were drawn, and another census."""
    return [
        other.pair
        for other in others
        if other.pair != cell.pair
        and other.digests
        and cell.digests
        and all(a == b for a, b in zip(cell.digests, other.digests, strict=False))
        and _held(cell) != _held(other)
    ]


def _held(cell: records.Cell) -> object:
    return [(layer.k, layer.v) for layer in cell.census.layers] if cell.census else cell.pair
