"""One cell in one process: what it is, its quality, its other paths, as one record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from pytest_kvquant.checks import gates
from pytest_kvquant.checks.active import check_active
from pytest_kvquant.checks.batched import judge
from pytest_kvquant.checks.contents import check_contents
from pytest_kvquant.checks.family import settled
from pytest_kvquant.checks.measurable import check_measurable
from pytest_kvquant.checks.placement import check_placement, placement
from pytest_kvquant.checks.shapes import check_shapes
from pytest_kvquant.checks.trajectory import check_trajectory
from pytest_kvquant.checks.types import check_types
from pytest_kvquant.config.budgets import Budgets
from pytest_kvquant.config.expectations import held_as
from pytest_kvquant.config.settings import MIXED
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError
from pytest_kvquant.inputs import geometry
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.metrics import kl_profile
from pytest_kvquant.numerics.metrics import quality as quality_figures
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.quality import paths
from pytest_kvquant.quality import prefill as quality
from pytest_kvquant.quality.control import Control, all_shapes
from pytest_kvquant.quality.effective_types import explain, held_bytes
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.cell import (
    Cell,
    CensusRecord,
    LayerRecord,
    QualitySection,
    Timing,
    Verdict,
)
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.results.library import Library
from pytest_kvquant.session import diagnosing

GATES_PER_CELL = 5


class Ground(NamedTuple):
    """What every cell of a run stands on."""

    task: Task
    source: ReferenceSource
    control: Control
    model: Model
    library: Library
    cells: int
    """Cells of the run: every gated figure of each counts against chance."""
    prober: diagnosing.Prober
    own_pair: bool = False
    """Whether a cell is compared with its own pair, of another build."""


class Measured(NamedTuple):
    """A cell's record, and its per-token figures where there are any."""

    cell: Cell
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
    partial = Cell(pair=str(pair), verdict="pass")
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
                settled=lambda seen: _settled(seen, budgets, ground),
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
    timing = Timing(
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


def _settled(evidence: Evidence, budgets: Budgets, ground: Ground) -> bool:
    """Whether more chunks could no longer change what any gate does to the exit code."""
    figures_in_run = GATES_PER_CELL * ground.cells
    judged = judge(evidence, budgets, ground.task.rules)
    return all(settled(gate, figures_in_run) for gate in judged)


def _identify(cell: Cell, pair: Pair, worker: Worker, expected: str | None, ground: Ground) -> Cell:
    """Take the census and look where the cache lies, before anything is measured."""
    log = worker.log_text()
    placed = placement(log)
    census = worker.census()
    types = msgspec.to_builtins(ground.library.types)
    expectation = geometry.expect(ground.model, pair, types)
    explanation = explain(census, expectation, types)
    record = CensusRecord(
        layers=tuple(
            LayerRecord(k=layer.k_type, v=layer.v_type, k_row=layer.k_row, v_row=layer.v_row)
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
        check_types(explanation, effective_pair(record, pair, expected), expected, log),
        check_placement(placed, gpus, ground.task.gpu_layers),
    )
    if expected is not None and found[0].verdict == "pass":
        record = _as_declared(record, held_bytes(census, expectation, types))
    return msgspec.structs.replace(cell, census=record, placement=placed, checks=found)


def _as_declared(census: CensusRecord, expected: int | None) -> CensusRecord:
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
    return explain(ground.control.census, expectation, types).kind == "agree"


def effective_pair(census: CensusRecord, pair: Pair, expected: str | None) -> str:
    """The pair that the cache holds; ``mixed`` where layers differ, empty where none is known."""
    held = held_as(((layer.k, layer.v) for layer in census.layers), pair, expected)
    return MIXED if len(held) > 1 else "".join(map(str, held))


def _refused(cell: Cell) -> Cell:
    """A cell that is not what its name says: nothing is measured under a false name."""
    assert cell.census is not None
    verdict: Verdict = "substituted" if cell.census.kind == "substituted" else "fail"
    return msgspec.structs.replace(cell, verdict=verdict, message=cell.checks[0].text)


def _add_contents(cell: Cell, pair: Pair, worker: Worker, prober: diagnosing.Prober) -> Cell:
    """What the cache holds, against the reference quantizer, where every cell is probed."""
    if not prober.every:
        return cell
    diagnosis = prober.short(pair, worker)
    found = (*cell.checks, check_contents(diagnosis))
    return msgspec.structs.replace(cell, checks=found, diagnosis=diagnosis)


def _add_quality(
    cell: Cell, pair: Pair, evidence: Evidence, budgets: Budgets, ground: Ground
) -> Cell:
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
    found = [check_measurable(budgets.kl_mean, floor)]
    if not ground.own_pair:
        found.append(check_active(pair, quantized, figures.kl_mean, floor))
    return msgspec.structs.replace(
        cell,
        gates=judge(evidence, budgets, ground.task.rules),
        checks=(*cell.checks, *found),
        quality=QualitySection(prefill=figures),
        per_chunk={
            name: tuple(values.tolist()) for name, values in evidence.per_chunk()._asdict().items()
        },
        digests=evidence.digests(),
        profile=kl_profile(evidence.tokens().kl),
    )


def _add_paths(cell: Cell, worker: Worker, budgets: Budgets, ground: Ground) -> Cell:
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
        found.append(check_trajectory(text.agreement, budgets.trajectory, text.first_divergence))
        cell = msgspec.structs.replace(cell, trajectory=text)
    shapes = all_shapes(worker, ground.task, plan)
    found += check_shapes(shapes, control.floor.shapes, budgets.kl_mean)
    return msgspec.structs.replace(cell, shapes=shapes, checks=tuple(found))


def _decode_gate(evidence: Evidence, budgets: Budgets) -> Gate:
    seen = np.asarray(evidence.per_chunk().kl)
    rules = Rules(cap=evidence.complete, early=False)
    gate = gates.judge_kl_mean(seen, budgets.decode_kl_mean, rules)
    return msgspec.structs.replace(gate, name="decode_kl_mean")


def _judged(cell: Cell) -> Cell:
    """The cell with the verdict that its gates and checks amount to."""
    if not cell.gates:
        return cell
    failing = {check.name for check in cell.checks if check.verdict == "fail"}
    verdicts = {gate.verdict for gate in cell.gates}
    verdict: Verdict = "pass"
    if "active" in failing:
        verdict = "inactive"
    elif failing or "fail" in verdicts:
        verdict = "fail"
    elif "inconclusive" in verdicts:
        verdict = "inconclusive"
    return msgspec.structs.replace(cell, verdict=verdict)


def twins(cell: Cell, others: list[Cell]) -> list[str]:
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


def _held(cell: Cell) -> object:
    return [(layer.k, layer.v) for layer in cell.census.layers] if cell.census else cell.pair
