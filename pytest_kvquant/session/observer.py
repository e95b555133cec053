"""Who is told how a run goes on, and how long its parts are expected to take."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.eta import Kind
from pytest_kvquant.quality.task import Task
from pytest_kvquant.speed.plan import SpeedPlan


class Observer(Protocol):
    """Who is told how a run goes on. Phases nest; the time of an inner one is not the outer's."""

    def note(self, line: str) -> None:
        """Something that a person should read."""

    def plan(self, kinds: Mapping[str, Kind], cells: int, *, trusted: bool) -> None:
        """What is to be done: units by phase, with guesses of their seconds.

        Args:
            trusted: whether the guesses are what an earlier run under the same conditions took.
        """

    def rates(self) -> Mapping[str, float]:
        """Seconds that a unit of each phase took, of which one was done."""

    def begin(self, phase: str, pair: Pair | None = None) -> None:
        """A phase begins: one of those of the plan."""

    def step(self, what: str, done: int, of: int) -> None:
        """How far the phase is; ``of`` 0 where nobody knows."""

    def cell(self, pair: Pair, words: str, seconds: float) -> None:
        """A pair is finished: its verdict and figures in a few words, and what it took."""

    def end(self, units: float = 1.0) -> None:
        """The innermost phase has ended: so many units of it are done."""


class Listener:
    """An observer that keeps what a person should read; all else goes unsaid."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        """Kept."""
        self.notes.append(line)

    def plan(self, kinds: Mapping[str, Kind], cells: int, *, trusted: bool) -> None:
        """Not told."""

    def rates(self) -> Mapping[str, float]:
        """Not kept."""
        return {}

    def begin(self, phase: str, pair: Pair | None = None) -> None:
        """Not told."""

    def step(self, what: str, done: int, of: int) -> None:
        """Not told."""

    def cell(self, pair: Pair, words: str, seconds: float) -> None:
        """Not told."""

    def end(self, units: float = 1.0) -> None:
        """Not told."""


class Announcer(Listener):
    """Says on standard error what a person should read, and each pair when it is finished.

    Args:
        name: of the command, before each line.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def note(self, line: str) -> None:
        """Said."""
        print(f"{self._name}: {line}", file=sys.stderr)

    def cell(self, pair: Pair, words: str, seconds: float) -> None:
        """Said, with its time."""
        self.note(f"{pair} {words} ({seconds:.0f} s)")


@contextmanager
def phase(
    observer: Observer, name: str, pair: Pair | None = None, units: float = 1.0
) -> Iterator[None]:
    """A phase from its beginning to its end, however it ends; so many units are done then."""
    observer.begin(name, pair)
    try:
        yield
    finally:
        observer.end(units)


WORKER = 1.0
"""Guessed seconds to start a worker and load a small model."""

LOADING, COMPILING = 0.5, 5.0
"""Guessed seconds in which the first comparison loads the compiled loops, and compiles them where
no earlier run has kept any."""

EXAMINING = {"off": 0.0, "minimal": 0.4, "standard": 1.2, "full": 4.0}
"""Guessed seconds in which the kernels of a pair are examined, by how much of them."""

ENDING = 0.5
"""Guessed seconds from the last test until the process is gone: files are written, workers end."""

SPEED_OF_BYTES = 8e10
"""Guessed tok/s of a prefill times the bytes of the model's weights: 12,000 tok/s of 6.7 MB."""

FEW, CHUNKS = 4, 12
"""Guessed chunks until f16 beside itself is decided, and until a quantized cell is."""

ROUNDS = 9
"""Guessed rounds until a speed test is decided."""


def guesses(
    settings: Settings, model: Model, task: Task, speed: SpeedPlan, *, compiled: bool
) -> dict[str, tuple[float, float]]:
    """Units and guessed seconds a unit of what one cell takes, and the reference, by phase.

    Only their ratios matter once the first of them is finished: see
    :func:`pytest_kvquant.numerics.eta.pace`.

    Args:
        compiled: whether an earlier run has kept the compiled loops.
    """
    rate = SPEED_OF_BYTES / max(model.size, 1)
    start = WORKER + model.size / 2e9
    chunk = task.shape.ctx / rate
    cap = task.rules.cap
    few, chunks = (min(FEW, cap), min(CHUNKS, cap)) if task.rules.early else (cap, cap)
    singles = settings.decode + 8 * settings.trajectory
    paths = (3 * singles + 4 * task.shape.ctx) / rate
    rest = (0.5 if settings.probe == "always" else 0.0) + EXAMINING[settings.coverage_level]
    # The emulated healthy cell is a cell of its own: a worker, the chunks, the paths.
    times = 2 if settings.healthy == "on" else 1
    samples = len(speed.kinds) * len(speed.depths) * 4 * (ROUNDS + 2) * speed.seconds
    filling = 2 * max(speed.depths, default=0) / rate
    return {
        "reference": (chunks, chunk),
        "control": (1, start + paths + 2 * chunk + (LOADING if compiled else COMPILING)),
        "first": (1, start + paths + rest + few * chunk * 1.5),
        "cell": (1, times * (start + paths + chunks * chunk) + rest + chunks * chunk * 0.5),
        "speed": (1, 2 * start + samples + filling),
        "ceiling": (1, 8 * start),
        "end": (1, ENDING),
    }
