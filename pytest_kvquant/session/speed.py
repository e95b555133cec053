"""The speed of a run: what is timed by default, and every pair timed once."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from pytest_kvquant.baselines.speed import SpeedConditions, read_stored
from pytest_kvquant.config import patterns as place
from pytest_kvquant.config.expectations import off_device, substitutes
from pytest_kvquant.config.floors import Floors, resolve_floors
from pytest_kvquant.config.patterns import DepthPattern
from pytest_kvquant.config.settings import Expect, Settings
from pytest_kvquant.engine.parent.worker import Engine
from pytest_kvquant.engine.parent.workers import Workers
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.machine.hardware import Hardware, cpu_name, describe
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.rounds import RoundRules
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.library import Library
from pytest_kvquant.results.speed import SpeedCell
from pytest_kvquant.session.finished import Finished
from pytest_kvquant.session.observer import Observer, phase
from pytest_kvquant.speed import depth_sweep
from pytest_kvquant.speed.ceiling import search
from pytest_kvquant.speed.declared import with_gone_cliffs
from pytest_kvquant.speed.plan import SpeedPlan
from pytest_kvquant.speed.stored import StoredSpeed
from pytest_kvquant.speed.streams import SpeedSetup

RULES = {
    "quick": RoundRules(least=6, most=9, threshold=20),
    "pr": RoundRules(least=6, most=24, threshold=20),
    "nightly": RoundRules(least=9, most=24, threshold=100),
}
DEPTHS = {"quick": (0,), "pr": (0, 8192), "nightly": (0, 8192, 65536)}
"""Depths to time a model at, as far as it was trained for them."""


MOST_CONTEXT = 1 << 20
"""Largest context to try of a model that does not say what it was trained for."""


class _Usual(NamedTuple):
    """What is timed where nothing was asked for."""

    prompt: int
    generate: int
    seconds: float


EMBEDDED = _Usual(prompt=32, generate=16, seconds=0.008)
"""The embedded model is for a first look within a minute: brief samples, of an empty cache in any
profile. On a CPU its attention is a small part of that, so that every pair keeps up with f16."""

REAL = _Usual(prompt=512, generate=128, seconds=0.5)


class SpeedRun:
    """Times pairs when they are first asked for.

    Raises:
        SettingsError: from the constructor, depths or patterns that cannot be meant, a bad speed
            baseline.
    """

    def __init__(
        self,
        settings: Settings,
        model: Model,
        library: Library,
        engine: Engine,
        *,
        other: Engine | None,
        workers: Workers,
        threads: int,
        expect: Mapping[str, Expect],
        pairs: Iterable[Pair],
        observer: Observer,
    ) -> None:
        note = observer.note
        for table, patterns in (("floors", settings.floors), ("expect", settings.expect)):
            for pattern in place.unused(patterns, table, pairs):
                note(f"[{table}] '{pattern}' matches no cell of this run")
        self._settings, self._model, self._library = settings, model, library
        self._engine, self._threads, self._note = engine, threads, note
        self._observer = observer
        self._workers = workers
        self._other = other
        """The build that cells are compared with, where that is not their own."""
        self.on = settings.speed == "on"
        self.ceiling_on = settings.ceiling or settings.profile == "nightly"
        self.plan = make_plan(settings, model.context_trained)
        if left_out := _left_out(settings, self.plan):
            note(
                f"speed is not timed at depth {left_out}: the model was trained for "
                f"{model.context_trained:,} tokens (--kv-depths times it all the same)"
            )
        self.announced: set[Pair] = set()
        """Pairs whose failure to be timed a test has reported already."""
        self._cells: dict[Pair, SpeedCell] = {}
        self.finished = Finished(None, {}, "")
        """What earlier sittings finished; set when the run begins."""
        self._ceilings: dict[Pair, Ceiling] = {}
        self._expect = expect
        self._expected = [
            (DepthPattern.parse(pattern, "expect"), entry) for pattern, entry in expect.items()
        ]
        for declared, entry in self._expected:
            key = "substituted" if entry.substituted is not None else "off_device"
            if declared.depth is not None and (entry.substituted or entry.off_device) is not None:
                raise SettingsError(
                    f"[expect] '{declared.pair} @ d{declared.depth}': what a cache holds and where "
                    f"it is used does not depend on the depth; declare {key} for the pair alone."
                )
        self._stored = self._read_stored()

    def measure(self, pair: Pair) -> SpeedCell:
        """The speed of a pair, timed now if it has not been."""
        if pair not in self._cells:
            self._cells[pair] = self.finished.speed(pair, self._key, lambda: self._timed(pair))
        return self._cells[pair]

    def ceiling(self, pair: Pair) -> Ceiling:
        """The largest context of a pair, searched now if it has not been."""
        if pair not in self._ceilings:
            most = self._settings.ceiling_max or self._model.context_trained or MOST_CONTEXT
            floor = self.floors(pair, 0).context or 0
            self._ceilings[pair] = self.finished.ceiling(
                pair, self._key, lambda: self._searched(pair, most, floor)
            )
        return self._ceilings[pair]

    def _searched(self, pair: Pair, most: int, floor: int) -> Ceiling:
        self._workers.rest()
        timesheet = self._workers.timesheet
        with timesheet.scope("ceiling"), phase(self._observer, "ceiling", pair):
            return search(pair, most, self._search_setup, floor=floor)

    def _timed(self, pair: Pair) -> SpeedCell:
        """A pair timed now; a fault of our own code is that pair's verdict, told once."""
        try:
            self._workers.rest()  # one set of weights on a device at a time
            with self._workers.timesheet.scope("speed"), phase(self._observer, "speed", pair):
                found = depth_sweep.measure(pair, self.plan, self.setup)
            return with_gone_cliffs(found, self.plan.depths, self.cliff_declared)
        except Exception as error:
            return SpeedCell(
                pair=str(pair),
                verdict="error",
                message=f"pytest-kvquant itself failed ({type(error).__name__}: {error}); please "
                "report it with the traceback.",
                log=traceback.format_exc(),
            )

    @property
    def _key(self) -> dict[str, object]:
        """What a time depends on that a figure of quality does not."""
        return {"hardware": self.hardware.name}

    def ceilings(self, order: Iterable[Pair]) -> tuple[Ceiling, ...]:
        """What was searched so far."""
        return tuple(self._ceilings[pair] for pair in order if pair in self._ceilings)

    def cells(self, order: Iterable[Pair]) -> tuple[SpeedCell, ...]:
        """What was timed so far."""
        return tuple(self._cells[pair] for pair in order if pair in self._cells)

    def floors(self, pair: Pair, depth: int) -> Floors:
        """Floors of a pair at a depth."""
        return resolve_floors(
            pair,
            depth,
            embedded=self._settings.model is None,
            overrides=self._settings.floors,
            same_pair=self._settings.compare_cells,
        )

    def cliff_declared(self, pair: Pair, kind: str, depth: int) -> bool:
        """Whether ``[expect]`` says that this path of the pair is off the fast path there."""
        return any(
            entry.cliff in (kind, "both") and declared.matches(pair, depth)
            for declared, entry in self._expected
        )

    @functools.cached_property
    def hardware(self) -> Hardware:
        """The machine of this run."""
        chip, backend = self._library.chip, self._library.device.rstrip("0123456789")
        return describe(cpu_name("unknown"), [chip if backend == "CPU" else f"{chip} ({backend})"])

    @functools.cached_property
    def _search_setup(self) -> SpeedSetup:
        """The same for the search for the largest context, which may have a limit of its own."""
        limit = self._settings.ceiling_memory
        if limit is None:
            return self.setup
        return self.setup._replace(memory_limit=round(limit * 1e9))

    @functools.cached_property
    def setup(self) -> SpeedSetup:
        """What pairs are timed on."""
        settings = self._settings
        limit = settings.memory_limit
        return SpeedSetup(
            engine=self._engine,
            model=self._model,
            library=self._library,
            gpu_layers=settings.gpu_layers,
            batch=settings.batch,
            ubatch=settings.ubatch,
            threads=self._threads,
            memory_limit=round(limit * 1e9) if limit is not None else None,
            floors=self.floors,
            stored=self._stored,
            expected=substitutes(self._expect),
            off_device=lambda pair: off_device(pair, self._expect, self._library.device),
            other=self._other,
            declared=self.cliff_declared,
            same_pair=settings.compare_cells,
            timesheet=self._workers.timesheet,
        )

    def _read_stored(self) -> StoredSpeed:
        settings, path = self._settings, self._settings.speed_baseline
        if path is None or self._other is not None or not self.on:
            return StoredSpeed()
        stored, problem = read_stored(
            path,
            hardware=self.hardware,
            model=self._model.fingerprint,
            conditions=SpeedConditions(
                self._threads, settings.batch, settings.ubatch, settings.gpu_layers
            ),
        )
        if problem:
            self._note(problem)
        return stored


def _left_out(settings: Settings, plan: SpeedPlan) -> str:
    """Depths of the profile that the model is too short for, in words."""
    if settings.depths is not None or settings.model is None or settings.speed == "off":
        return ""
    return ", ".join(f"{depth:,}" for depth in DEPTHS[settings.profile] if depth not in plan.depths)


def make_plan(settings: Settings, context_trained: int) -> SpeedPlan:
    """What a run times: what was asked for, else the defaults of the profile and the model.

    Raises:
        SettingsError: no test is left, or depths are not ascending.
    """
    embedded = settings.model is None
    usual = EMBEDDED if embedded else REAL
    prompt = settings.pp if settings.pp is not None else usual.prompt
    generate = settings.tg if settings.tg is not None else usual.generate
    if not prompt and not generate:
        raise SettingsError("--kv-pp 0 and --kv-tg 0 leave no speed test; use --kv-speed off.")
    depths = settings.depths
    if depths is None:
        depths = (0,) if embedded else DEPTHS[settings.profile]
        room = context_trained - max(prompt, generate) if context_trained else max(depths)
        depths = tuple(depth for depth in depths if depth <= room or depth == 0)
    if list(depths) != sorted(set(depths)):
        listed = ",".join(map(str, depths))
        raise SettingsError(f"--kv-depths {listed} must ascend: a cache is only ever extended.")
    rules = RULES[settings.profile]
    if settings.rounds is not None:
        if settings.rounds < rules.least:
            raise SettingsError(
                f"--kv-rounds {settings.rounds}: fewer than {rules.least} rounds cannot decide in "
                f"the {settings.profile} profile."
            )
        rules = msgspec.structs.replace(rules, most=settings.rounds)
    return SpeedPlan(
        depths=depths,
        prompt=prompt,
        generate=generate,
        seconds=settings.sample if settings.sample is not None else usual.seconds,
        rules=rules,
        confirm=settings.profile != "nightly",
    )
