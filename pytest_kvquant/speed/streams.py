"""The contexts that are timed against each other: the cells', and that of their measure.

Of one build they live in one process. Two builds cannot: each has a process then, and they take
turns, so that the rounds are A B B A all the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pytest_kvquant.config.expectations import held_as, substitute
from pytest_kvquant.config.floors import Floors
from pytest_kvquant.config.overrides import MIXED
from pytest_kvquant.config.speed_tests import SPEED_TESTS
from pytest_kvquant.engine.messages.timing import WarmedUp
from pytest_kvquant.engine.options import Options, flag
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.timed import TimedWorker
from pytest_kvquant.engine.parent.timesheet import Timesheet
from pytest_kvquant.errors import CellError, CellSubstituted
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.library import Device, Library
from pytest_kvquant.results.operations import off_device_text
from pytest_kvquant.speed.roof import Roofs
from pytest_kvquant.speed.stored import StoredSpeed

if TYPE_CHECKING:
    from pytest_kvquant.engine.messages.timing import Profile, StreamsOpened

_SLOW_PATH = re.compile(r"\(slow\)|fall(?:s|ing)? ?back", re.IGNORECASE)
"""As in ``no FlashAttention vector kernel compiled for K/V types …, converting … (slow)``."""


class TimedSide(NamedTuple):
    """One context: of which build, of which pair."""

    engine: Engine
    pair: Pair
    name: str
    """For people and the account."""


class SpeedSetup(NamedTuple):
    """What the tests of a run are taken on."""

    engine: Engine
    model: Model
    library: Library
    gpu_layers: int
    batch: int
    ubatch: int
    threads: int
    options: Options
    """Options of llama.cpp that the user set."""
    memory_limit: int | None
    """Bytes that a worker may use; ``None``: what is free."""
    floors: Callable[[Pair, int], Floors]
    stored: StoredSpeed
    expected: Mapping[str, str]
    """Substitutions that the configuration expects: a pattern of pairs, the pair held instead."""
    declared: Callable[[Pair, str, int], bool]
    """Whether the configuration declares a cliff of a kind of test at a depth."""
    off_device: Callable[[Pair], bool] = lambda _pair: False
    """Whether the configuration declares that a pair leaves its attention to the CPU."""
    other: Engine | None = None
    """The build that cells are compared with, where that is not their own."""
    same_pair: bool = False
    """Whether a cell is compared with the same pair of that build, not with f16/f16."""
    timesheet: Timesheet | None = None
    """Told where the time goes."""
    watch: Callable[[], Callable[[], str]] = lambda: str
    """Begins to watch who else uses the device; what it gives tells, in words, or nothing."""
    roofs: Roofs | None = None
    """What the machine permits; ``None``: not wanted."""
    told: Callable[[str, float], None] = lambda _what, _share: None
    """Told what is being timed, and how far all is that is timed together, 0 to 1."""

    @property
    def kv_offload(self) -> bool:
        """Whether caches go to the device that computes."""
        return flag(self.options, "kv-offload", True)

    @property
    def holding(self) -> list[Device]:
        """The GPUs that hold caches."""
        return self.library.gpus_in_use(self.gpu_layers) if self.kv_offload else []


class Account:
    """What a cell's timing cost."""

    def __init__(self) -> None:
        self.prefilled: dict[str, list[int]] = {}
        self.library_seconds = 0.0
        self.description: StreamsOpened | None = None
        """Of the first streams that were opened."""
        self.activity = ""
        """What is being timed, as the end of "it died while"."""
        self.remarks: dict[str, None] = {}
        """Lines in which the library says that it took a slow path, in order."""
        self.off_device: str | None = None
        """What of the cell runs on the CPU though a GPU holds its cache; ``None``: not looked."""


class Streams(Protocol):
    """Contexts that sweep together, and samples of them; see :class:`TimedWorker`."""

    @property
    def profile(self) -> Profile:
        """By kind: depth, and nanoseconds of a token of each, on the way up."""

    def extend_to(self, depth: int, streams: Sequence[int]) -> list[int]:
        """Extend these to ``depth``; tokens prefilled so far, of every one."""

    def warm(self, kind: str, count: int, seconds: float, streams: Sequence[int]) -> WarmedUp:
        """Warm these up; what makes a sample, of each."""

    def samples(self, kind: str, count: int, order: Sequence[int]) -> list[int]:
        """Nanoseconds per test, the mean of a sample each, of the contexts in ``order``."""


class TakingTurns:
    """Contexts in processes of their own: one works while the others wait."""

    def __init__(self, workers: Sequence[TimedWorker]) -> None:
        self._workers = workers

    @property
    def profile(self) -> Profile:
        """Each went up by itself; depths and times side by side."""
        own = [worker.profile for worker in self._workers]
        return {
            kind: [
                (points[0][0], *(point[1] for point in points))
                for points in zip(*(one[kind] for one in own), strict=False)
            ]
            for kind in own[0]
        }

    def extend_to(self, depth: int, streams: Sequence[int]) -> list[int]:
        """Extend these to ``depth``, one after another."""
        return [
            worker.extend_to(depth, (0,) if at in streams else ())[0]
            for at, worker in enumerate(self._workers)
        ]

    def warm(self, kind: str, count: int, seconds: float, streams: Sequence[int]) -> WarmedUp:
        """Warm up, one after another; tests stay whole."""
        found = [self._workers[at].warm(kind, count, seconds, (0,)) for at in streams]
        return WarmedUp(repeats=[one.repeats[0] for one in found], parts=1)

    def samples(self, kind: str, count: int, order: Sequence[int]) -> list[int]:
        """One sample after another."""
        return [self._workers[at].samples(kind, count, (0,))[0] for at in order]


@contextmanager
def streams(
    sides: Sequence[TimedSide], context: int, setup: SpeedSetup, accounts: Sequence[Account]
) -> Iterator[Streams]:
    """Fresh contexts of ``context`` tokens each, entered in the accounts when they are done.

    Args:
        sides: the cells, and last what they are timed against; or one of these alone.
        accounts: one for each cell; or for the one side.

    Raises:
        CellError: a worker dies or refuses.
        CellSubstituted: a cache holds other types than its side says.
    """
    one_build = all(side.engine is sides[0].engine for side in sides)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(_opened(own, context, setup, accounts))
            for own in ([sides] if one_build else [[side] for side in sides])
        ]
        together: Streams = workers[0] if one_build else TakingTurns(workers)
        yield together
        counts = together.extend_to(0, ())
        for at, account in enumerate(accounts):
            for one in dict.fromkeys((at, len(sides) - 1)):
                account.prefilled.setdefault(sides[one].name, []).append(counts[one])


def sides(pair: Pair, setup: SpeedSetup) -> tuple[TimedSide, TimedSide]:
    """A cell, and what it is timed against."""
    other = pair if setup.same_pair else REFERENCE
    where = " of the reference build" if setup.other is not None else ""
    return (
        TimedSide(setup.engine, pair, str(pair)),
        TimedSide(setup.other or setup.engine, other, f"{other}{where}"),
    )


@contextmanager
def _opened(
    sides: Sequence[TimedSide], context: int, setup: SpeedSetup, accounts: Sequence[Account]
) -> Iterator[TimedWorker]:
    """A fresh process with a context per side, all of one build."""
    engine = sides[0].engine
    cells = list(zip(sides, accounts, strict=False))  # f16 beside them has no account of its own
    with TimedWorker(engine, timesheet=setup.timesheet) as worker:
        worker.library(engine.directory)
        begun = time.perf_counter()
        worker.model(setup.model.path, gpu_layers=setup.gpu_layers)
        loading = time.perf_counter() - begun
        for side, account in cells:
            if account.off_device is None:
                account.off_device = _off_device(worker, side.pair, setup)
        with _named(worker, sides):
            described = worker.open_streams(
                [side.pair for side in sides],
                at_once={one.name: one.at_once for one in SPEED_TESTS},
                ctx=context,
                batch=setup.batch,
                ubatch=setup.ubatch,
                threads=setup.threads,
            )
        if setup.roofs is not None:
            setup.roofs.measure(worker, context, setup.threads)
        _require_types(sides[: len(cells)], described.types, setup)
        try:
            with _named(worker, sides):
                yield worker
        finally:
            said = [line.strip() for line in worker.log_text().splitlines()]
            for side, account in cells:
                account.description = account.description or described
                account.library_seconds += (loading + worker.library_ns / 1e9) / len(accounts)
                account.remarks |= dict.fromkeys(_slow_paths(said, side.pair, sides))


def _slow_paths(said: Sequence[str], pair: Pair, sides: Sequence[TimedSide]) -> Iterator[str]:
    """What the log says of slow paths of this pair, or of none that it names."""
    names = {f"{side.pair.k}{between}{side.pair.v}" for side in sides for between in "-/"}
    own = {f"{pair.k}-{pair.v}", str(pair)}
    for line in said:
        if _SLOW_PATH.search(line):
            named = {name for name in names if re.search(rf"(?<!\w){name}(?!\w)", line)}
            if not named or named & own:
                yield line


def _off_device(worker: TimedWorker, pair: Pair, setup: SpeedSetup) -> str:
    """What of a pair runs on the CPU though a GPU computes; empty: nothing, or no GPU does."""
    gpus = setup.library.gpus_in_use(setup.gpu_layers)
    if not gpus or not setup.model.holds(setup.gpu_layers) or not setup.kv_offload:
        return ""
    operations = worker.operations(pair, threads=setup.threads)
    return off_device_text(operations, gpus[0].name)


@contextmanager
def _named(worker: TimedWorker, sides: Sequence[TimedSide]) -> Iterator[None]:
    """See that an error knows the pair that the worker was at."""
    try:
        yield
    except CellError as error:
        if worker.at is not None and len(sides) > 1:
            error.of = (str(sides[worker.at].pair),)
        raise


def _require_types(
    sides: Sequence[TimedSide],
    held: Sequence[Sequence[tuple[str, str | None]]],
    setup: SpeedSetup,
) -> None:
    """Nothing is timed under a false name.

    Args:
        held: K and V type of each layer, by side; ``None`` where the architecture stores no V.
    """
    told = (_other_types(side.pair, own, setup) for side, own in zip(sides, held, strict=False))
    wrong = {str(side.pair): text for side, text in zip(sides, told, strict=False) if text}
    if wrong:
        error = CellSubstituted(next(iter(wrong.values())))
        error.of = tuple(wrong)
        raise error


def _other_types(pair: Pair, held: Sequence[tuple[str, str | None]], setup: SpeedSetup) -> str:
    """What a cache holds instead, in words; empty: what it should."""
    declared = substitute(pair, setup.expected)
    found = held_as(held, pair, declared)
    names = ", ".join(map(str, found))
    if not found or (MIXED if len(found) > 1 else names) == (declared or str(pair)):
        return ""
    said = f", and not {declared} as [expect] says: correct or remove the entry"
    return f"The cache holds {names} instead{said if declared else ''}."
