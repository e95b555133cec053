"""Results of several shards or machines as one: the same cells, judged as one family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from pytest_kvquant.checks.distinct import check_distinct, twins, unseen_twins
from pytest_kvquant.checks.family import holm_exit
from pytest_kvquant.errors import ResultError
from pytest_kvquant.report.advice import advise
from pytest_kvquant.report.matrix_rows import TONES, tone
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell, Verdict
from pytest_kvquant.results.completeness import Selection
from pytest_kvquant.results.conditions import ReferenceRecord
from pytest_kvquant.results.result import Result, RunTiming, counted
from pytest_kvquant.results.speed import SpeedCell

Part = TypeVar("Part", SpeedCell, Ceiling)


def merge(results: Sequence[tuple[str, Result]]) -> Result:
    """Put the cells of several results together.

    The cells of the first come first. A pair that several have, as every shard has ``f16/f16``, has
    to show the same logits and is taken once, from where it came out worst; so are its speed and
    its ceiling. What only the whole matrix can tell is judged again: chance among all gates, pairs
    with the same logits, the advice. The conditions are those of the first; times are added.

    Args:
        results: name and result, one or more.

    Raises:
        ResultError: other conditions than the first, or a pair that was measured twice and came
            out differently.
    """
    (first_name, first), *others = results
    cells = {cell.pair: cell for cell in first.cells}
    for name, result in others:
        _same_conditions(first_name, first, name, result)
        for cell in result.cells:
            known = cells.setdefault(cell.pair, cell)
            if TONES.index(tone(cell.verdict)) > TONES.index(tone(known.verdict)):
                cells[cell.pair] = cell
            if any(a != b for a, b in zip(known.digests, cell.digests, strict=False)):
                raise ResultError(
                    f"{name} has other logits for {cell.pair} than the files before it, although "
                    "the conditions are the same. Leave one of them out, or find out why with "
                    "kvquant compare."
                )
    every = [result for _, result in results]
    judged = _judged_together(list(cells.values()))
    speeds = _gravest(one for result in every for one in result.speed)
    ceilings = _gravest(one for result in every for one in result.ceilings)
    order = dict.fromkeys([*cells, *speeds, *ceilings])
    speed = tuple(speeds[pair] for pair in order if pair in speeds)
    searched = tuple(ceilings[pair] for pair in order if pair in ceilings)
    return msgspec.structs.replace(
        first,
        cells=judged,
        speed=speed,
        ceilings=searched,
        zoo=tuple(one for result in every for one in result.zoo),
        selection=_selected_by_all(every),
        sittings=tuple(
            sorted(
                (one for result in every for one in result.sittings), key=lambda one: one.started
            )
        ),
        unmeasured=counted(one for result in every for one in result.unmeasured),
        advice=advise(judged, speed, searched, by_cell=first.reference.by_cell),
        floor=max((one.floor for one in every if one.floor), key=lambda one: one.kl, default=None),
        reference=_references([result.reference for result in every]),
        decode_seconds=sum(result.decode_seconds for result in every),
        seconds=sum(result.seconds for result in every),
        timing=_timings([result.timing for result in every if result.timing]),
    )


def _timings(every: Sequence[RunTiming]) -> RunTiming | None:
    """The seconds of all."""

    def added(tables: Iterable[dict[str, float]]) -> dict[str, float]:
        found: dict[str, float] = {}
        for table in tables:
            for name, seconds in table.items():
                found[name] = found.get(name, 0.0) + seconds
        return dict(sorted(found.items(), key=lambda one: -one[1]))

    if not every:
        return None
    return RunTiming(
        wall=sum(one.wall for one in every),
        parts=added(one.parts for one in every),
        scopes=added(one.scopes for one in every),
    )


def require_whole(results: Sequence[tuple[str, Result]]) -> None:
    """See that the results are those of whole runs, and all shards of their matrix.

    Args:
        results: name and result, one or more.

    Raises:
        ResultError: one is incomplete, or a shard is missing, given twice, or of another division.
    """
    for name, result in results:
        if not result.complete:
            raise ResultError(
                f"{name} is {result.incomplete_text}. Give its command again: it goes on from what "
                "it had."
            )
    shards = {
        name: tuple(map(int, result.selection.shard.split("/")))
        for name, result in results
        if result.selection is not None and result.selection.shard
    }
    if not shards:
        return
    counts = {count for _, count in shards.values()}
    if len(counts) > 1 or len(shards) < len(results):
        told = ", ".join(f"{name}: {at}/{n}" for name, (at, n) in shards.items())
        raise ResultError(f"These are not the shards of one matrix ({told}).")
    (count,) = counts
    given = sorted(at for at, _ in shards.values())
    if missing := sorted(set(range(1, count + 1)) - set(given)):
        raise ResultError(
            f"Shard {', '.join(f'{at}/{count}' for at in missing)} is missing: a merged result "
            "stands for the whole matrix."
        )


def _selected_by_all(results: Sequence[Result]) -> Selection | None:
    """What all of them were asked for, together."""
    known = [one.selection for one in results if one.selection is not None]
    if not known:
        return None
    return Selection(
        pairs=tuple(dict.fromkeys(pair for one in known for pair in one.pairs)),
        of=max(one.of for one in known),
        tests=tuple(dict.fromkeys(test for one in known for test in one.tests)),
        left_out=tuple(dict.fromkeys(test for one in known for test in one.left_out)),
    )


def _gravest(parts: Iterable[Part]) -> dict[str, Part]:
    """By pair; of a pair that several results have, what fails in one of them."""
    found: dict[str, Part] = {}
    for part in parts:
        known = found.setdefault(part.pair, part)
        if TONES.index(tone(part.verdict)) > TONES.index(tone(known.verdict)):
            found[part.pair] = part
    return found


def _references(parts: Sequence[ReferenceRecord]) -> ReferenceRecord:
    """What all did for their reference; chunks that one computed and another reused count once."""
    computed = sum(part.computed for part in parts)
    used = max(part.computed + part.reused for part in parts)
    return msgspec.structs.replace(
        parts[0],
        computed=computed,
        reused=max(0, used - computed),
        damaged=sum(part.damaged for part in parts),
        decode_seconds=sum(part.decode_seconds for part in parts),
    )


def _same_conditions(first_name: str, first: Result, name: str, result: Result) -> None:
    for what, one, other in _conditions(first, result):
        if one != other:
            raise ResultError(
                f"{name} was measured under other conditions than {first_name}: {what} is "
                f"'{other}', there '{one}'. One result has one set of conditions: keep these "
                "apart, and look at them side by side with kvquant compare or kvquant history."
            )


def _conditions(first: Result, other: Result) -> Iterator[tuple[str, object, object]]:
    def both(what: str, name: str, one: object, two: object) -> tuple[str, object, object]:
        return what, getattr(one, name), getattr(two, name)

    yield both("the model", "fingerprint", first.model, other.model)
    yield both("the corpus", "fingerprint", first.corpus, other.corpus)
    yield both("the hash of the tokens", "tokens_hash", first.corpus, other.corpus)
    for field in first.settings.__struct_fields__:
        yield both(f"the setting '{field}'", field, first.settings, other.settings)
    yield both("comparing with the same pair", "by_cell", first.reference, other.reference)
    builds = [one.reference.library for one in (first, other)]
    hashes = [build.hash if build else "that of the cells" for build in builds]
    yield "the build of the reference", hashes[0], hashes[1]
    one, two = first.environment, other.environment
    yield both("the build", "hash", one.library, two.library)
    yield both("the device", "chip", one.library, two.library)
    yield both("the processor", "cpu", one, two)
    yield both("the environment of the workers", "variables_set", one, two)


def _judged_together(cells: list[Cell]) -> tuple[Cell, ...]:
    """The cells in the light of each other, as one run would have seen them."""
    gates = [(cell.pair, gate) for cell in cells for gate in cell.gates]
    kept = holm_exit([gate for _, gate in gates])
    alone: set[tuple[str, str]] = {
        (pair, gate.name)
        for (pair, gate), keeps in zip(gates, kept, strict=True)
        if gate.verdict == "fail" and not keeps
    }
    return tuple(_judged(cell, cells, alone) for cell in cells)


def _judged(cell: Cell, cells: list[Cell], alone: set[tuple[str, str]]) -> Cell:
    if not cell.gates:
        return cell
    chance = tuple(gate.name for gate in cell.gates if (cell.pair, gate.name) in alone)
    failing = [gate for gate in cell.gates if gate.verdict == "fail"]
    distinct = check_distinct(twins(cell, cells), unseen_twins(cell, cells))
    checks = (*(check for check in cell.checks if check.name != "distinct"), distinct)
    verdict: Verdict = cell.verdict
    if distinct.verdict == "fail":
        verdict = "aliased"
    elif verdict in ("fail", "inconclusive") and failing:
        facts = any(check.verdict == "fail" for check in checks)
        verdict = "fail" if facts or len(chance) < len(failing) else "inconclusive"
    return msgspec.structs.replace(cell, verdict=verdict, not_significant=chance, checks=checks)
