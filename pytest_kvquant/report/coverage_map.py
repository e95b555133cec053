"""Pairs × corners of kernels: what is fine, failed, unsupported, and what nobody looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.kernels import CornerRecord, Examination
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.zoo import ZooCell

State = Literal["fine", "failed", "unsupported", "not covered"]
STATES: tuple[State, ...] = ("failed", "unsupported", "fine", "not covered")
"""What a corner of a pair amounts to: the first of these that was found in it."""

SIZES = ((1, "1"), (2, "2"), (8, "3–8"), (32, "9–32"), (64, "33–64"), (1 << 30, "more"))
"""Query tokens of a node, up to: kernels of one token, of a few, of many."""

LENGTHS = ((256, "up to 256 cells"), (4096, "up to 4,096 cells"), (1 << 40, "more cells"))
"""Cells that a query sees, up to."""

HEADS = ("64", "80", "96", "112", "128", "192/128", "256", "320/256", "512", "576/512")
"""Elements of a head of K/V: those of models in use."""

MASKS = ("causal", "window", "softcap", "sinks", "alibi", "streams")
CHECKS = {"ladder": "batch sizes", "fused": "without oracle"}
"""Checks of kernels that are of no single node."""
AROUND = ("cache writes", "graph inputs", *CHECKS.values())
OPERATIONS = {
    "shift": "shift",
    "divide": "divide",
    "copy": "copy",
    "shared": "copy",
    "remove": "remove",
    "keep": "remove",
    "reuse": "remove",
    "state": "save, restore",
    "slots": "slots",
    "prefill": "slots",
    "last": "full cache",
    "past": "window passed",
    "roll": "roll back",
}
"""Families of scenarios, by the first word of a scenario's name."""
OTHERS = "others"


class MapColumn(NamedTuple):
    """A column of the map."""

    group: str
    label: str


class Line(NamedTuple):
    """A pair, with a state for each column."""

    pair: str
    states: tuple[State, ...]


class CoverageMap(NamedTuple):
    """All of it."""

    columns: tuple[MapColumn, ...]
    lines: tuple[Line, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Titles over the columns, with how many each spans."""
        found: dict[str, int] = {}
        for place in self.columns:
            found[place.group] = found.get(place.group, 0) + 1
        return list(found.items())

    def count(self, state: State) -> int:
        """Corners of pairs in that state."""
        return sum(line.states.count(state) for line in self.lines)


def coverage_map(result: Result) -> CoverageMap | None:
    """The map of a run; ``None`` where no kernel was examined."""
    seen: dict[str, dict[MapColumn, set[State]]] = {}
    for cell in result.cells:
        if cell.kernels is not None or cell.verdict == "unsupported":
            _add(seen, cell.pair, _of_cell(cell))
    for member in result.zoo:
        _add(seen, member.pair, _of_member(member))
    if not any(seen.values()):
        return None
    known = tuple(_columns())
    further = dict.fromkeys(place for found in seen.values() for place in found)
    columns = (*known, *(place for place in further if place not in known and place != WHOLE))
    lines = tuple(
        Line(pair, tuple(_state(found, place) for place in columns)) for pair, found in seen.items()
    )
    return CoverageMap(columns, lines)


WHOLE = MapColumn("", "")
"""Stands for all columns: of a pair that the library does not make at all."""


def _columns() -> Iterator[MapColumn]:
    for _, length in LENGTHS:
        yield from (MapColumn(f"query tokens, {length}", label) for _, label in SIZES)
    yield from (MapColumn("head size", label) for label in HEADS)
    yield from (MapColumn("mask", label) for label in MASKS)
    yield from (MapColumn("around attention", label) for label in AROUND)
    yield from (MapColumn("cache operations", one) for one in dict.fromkeys(OPERATIONS.values()))


def _add(
    seen: dict[str, dict[MapColumn, set[State]]],
    pair: str,
    found: Iterable[tuple[MapColumn, State]],
) -> None:
    places = seen.setdefault(pair, {})
    for place, state in found:
        places.setdefault(place, set()).add(state)


def _state(found: dict[MapColumn, set[State]], place: MapColumn) -> State:
    states = found.get(place) or found.get(WHOLE, set())
    return next((one for one in STATES if one in states), "not covered")


def _of_cell(cell: Cell) -> Iterator[tuple[MapColumn, State]]:
    if cell.verdict == "unsupported":
        yield WHOLE, "unsupported"
    elif cell.kernels is not None:
        yield from _of_kernels(cell.kernels)
        yield from _of_checks(cell.checks)


def _of_member(member: ZooCell) -> Iterator[tuple[MapColumn, State]]:
    if member.verdict == "unsupported":
        yield MapColumn("head size", _heads(member.head_k, member.head_v)), "unsupported"
    elif member.kernels is not None:
        yield from _of_kernels(member.kernels)
        yield from _of_checks(member.checks)


def _of_checks(checks: Iterable[Check]) -> Iterator[tuple[MapColumn, State]]:
    for check in checks:
        if check.name in CHECKS and check.verdict != "inconclusive":
            state: State = "failed" if check.verdict == "fail" else "fine"
            yield MapColumn("around attention", CHECKS[check.name]), state


def _of_kernels(found: Examination) -> Iterator[tuple[MapColumn, State]]:
    for one in found.judged:
        state: State = "failed" if one.failed else "fine"
        for place in _places(one):
            yield place, state
    for scenario in found.scenarios:
        family = OPERATIONS.get(scenario.name.partition("_")[0], OTHERS)
        said: State = "fine" if scenario.verdict == "pass" else "failed"
        if scenario.verdict == "unsupported":
            said = "unsupported"
        yield MapColumn("cache operations", family), said


def _places(one: CornerRecord) -> Iterator[MapColumn]:
    if one.operation == "write":
        yield MapColumn("around attention", "cache writes")
    elif one.operation == "attention":
        length = next(label for most, label in LENGTHS if one.length <= most)
        size = next(label for most, label in SIZES if one.tokens <= most)
        yield MapColumn(f"query tokens, {length}", size)
        yield MapColumn("head size", _heads(one.head_k, one.head_v))
        yield from (MapColumn("mask", kind) for kind in one.mask.split("+") if kind)
    elif one.operation not in ("softmax", "product", "placement"):
        yield MapColumn("around attention", "graph inputs")


def _heads(k: int, v: int) -> str:
    return str(k) if k == v else f"{k}/{v}"
