"""The speed of a run: every pair timed once."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterable

import msgspec

from pytest_kvquant.baselines.speed import SpeedConditions, read_stored
from pytest_kvquant.config import patterns as place
from pytest_kvquant.config.expectations import off_device, substitutes
from pytest_kvquant.config.floors import Floors, resolve_floors
from pytest_kvquant.config.patterns import DepthPattern
from pytest_kvquant.engine.options import flag
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.machine.company import Company
from pytest_kvquant.machine.hardware import Hardware, cpu_name, describe
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.speed import SpeedCell
from pytest_kvquant.session.finished import Finished
from pytest_kvquant.session.observer import Observer, phase
from pytest_kvquant.session.prepared import Prepared
from pytest_kvquant.session.speed_plan import left_out, make_plan
from pytest_kvquant.speed import timed_pairs
from pytest_kvquant.speed.ceiling import search
from pytest_kvquant.speed.declared import with_gone_cliffs
from pytest_kvquant.speed.methods import beside
from pytest_kvquant.speed.roof import Roofs
from pytest_kvquant.speed.stored import StoredSpeed
from pytest_kvquant.speed.streams import SpeedSetup

MOST_CONTEXT = 1 << 20
"""Largest context to try of a model that does not say what it was trained for."""


class SpeedRun:
    """Times pairs when they are first asked for.

    Args:
        pairs: cells of the matrix, of all shards.

    Raises:
        SettingsError: from the constructor, depths or patterns that cannot be meant, a bad speed
            baseline.
    """

    def __init__(self, ready: Prepared, pairs: Iterable[Pair], observer: Observer) -> None:
        settings, note = ready.settings, observer.note
        for table, patterns in (("floors", settings.floors), ("expect", settings.expect)):
            for pattern in place.unused(patterns, table, pairs):
                note(f"[{table}] '{pattern}' matches no cell of this run")
        self._ready, self._observer = ready, observer
        self._settings, self._model, self._library = settings, ready.model, ready.library
        self._threads, self._workers = ready.task.shape.threads, ready.workers
        self.on = settings.speed == "on"
        self.ceiling_on = settings.ceiling or settings.profile == "nightly"
        on_cpu = not self._library.gpus_in_use(settings.gpu_layers)
        self.plan = make_plan(settings, self._model.context_trained, on_cpu=on_cpu)
        if missing := left_out(settings, self.plan):
            instead = f"{self.plan.depths[-1]:,}" if self.plan.depths[-1] else "no depth"
            note(
                f"speed is timed at {instead} instead of {missing}: the model was trained for "
                f"{self._model.context_trained:,} tokens"
                f"{', and this is a CPU' if on_cpu else ''} (--kv-depths says otherwise)"
            )
        self.announced: set[Pair] = set()
        """Pairs whose failure to be timed a test has reported already."""
        self.together: tuple[Pair, ...] = ()
        """Pairs that this process will time, in order, and may time side by side."""
        self._cells: dict[Pair, SpeedCell] = {}
        self.finished = Finished(None, {}, "")
        """What earlier sittings finished; set when the run begins."""
        self._ceilings: dict[Pair, Ceiling] = {}
        self._expect = ready.expect
        self._expected = [
            (DepthPattern.parse(pattern, "expect"), entry)
            for pattern, entry in self._expect.items()
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
        if not self._is_known(pair):
            for one, cell in self._timed(pair).items():
                self._cells[one] = cell
                self.finished.keep_speed(one, self._key, cell)
        return self._cells[pair]

    def _is_known(self, pair: Pair) -> bool:
        """Whether a pair was timed: by this sitting, or by an earlier one that it takes over."""
        if pair not in self._cells:
            earlier = self.finished.earlier_speed(pair, self._key)
            if earlier is None:
                return False
            self._cells[pair] = earlier
        return True

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

    def _timed(self, pair: Pair) -> dict[Pair, SpeedCell]:
        """A pair timed now, and those beside it; a fault of our own code is that pair's verdict."""
        try:
            self._workers.rest()  # one set of weights on a device at a time
            group = self._group(pair)
            with (
                self._workers.timesheet.scope("speed"),
                phase(self._observer, "speed", pair, len(group) + 1),  # and f16
            ):
                cells = timed_pairs.measure_together(group, self.plan, self.setup)
            found = [with_gone_cliffs(one, self.plan.depths, self.cliff_declared) for one in cells]
            return dict(zip(group, found, strict=True))
        except Exception as error:
            failed = SpeedCell(
                pair=str(pair),
                verdict="error",
                message=f"pytest-kvquant itself failed ({type(error).__name__}: {error}); please "
                "report it with the traceback.",
                log=traceback.format_exc(),
            )
            return {pair: failed}

    def _group(self, pair: Pair) -> list[Pair]:
        """A pair, and those after it that this run has yet to time and that fit beside it."""
        later = self.together[self.together.index(pair) + 1 :] if pair in self.together else ()
        left = [one for one in later if not self._is_known(one)]
        return [pair, *beside(pair, left, self.plan, self.setup)]

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
            backend=self._library.device,
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
            engine=self._ready.engine,
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
            options=settings.setup,
            other=self._ready.timed_against,
            declared=self.cliff_declared,
            same_pair=settings.compare_cells,
            timesheet=self._workers.timesheet,
            watch=self._watch,
            roofs=self._roofs(),
            told=lambda what, share: self._observer.step(what, round(1000 * share), 1000),
        )

    def _roofs(self) -> Roofs | None:
        """What the machine permits; unknown where layers or caches lie on several kinds of device.

        Not of the embedded model, whose samples of milliseconds are for a first look.
        """
        settings, model = self._settings, self._model
        gpus = self._library.gpus_in_use(settings.gpu_layers)
        if settings.model is None or (gpus and not self._all_on_gpu):
            return None
        return Roofs(
            model,
            msgspec.to_builtins(self._library.types),
            gpus[0].name if gpus else None,
            batch=settings.batch,
            ubatch=settings.ubatch,
        )

    @property
    def _all_on_gpu(self) -> bool:
        """Whether nothing was asked to stay with the CPU."""
        options = self._settings.setup
        stays = ("override-tensor", "cpu-moe", "n-cpu-moe")
        return (
            self._model.holds(self._settings.gpu_layers)
            and flag(options, "kv-offload", True)
            and not any(options.get(name) for name in stays)
        )

    def _watch(self) -> Callable[[], str]:
        """Begin to watch who else uses the device.

        Not for the embedded model: its floors of half of f16's speed hold on a busy machine too.
        """
        if self._settings.model is None or self._settings.disturbed == "ignore":
            return str
        gpu = bool(self._library.gpus_in_use(self._settings.gpu_layers))
        return Company(self._threads, gpu=gpu).told

    def _read_stored(self) -> StoredSpeed:
        settings, path = self._settings, self._settings.speed_baseline
        if path is None or self._ready.timed_against is not None or not self.on:
            return StoredSpeed()
        stored, problem = read_stored(
            path,
            hardware=self.hardware,
            model=self._model.fingerprint,
            conditions=SpeedConditions(
                self._threads,
                settings.batch,
                settings.ubatch,
                settings.gpu_layers,
                self._ready.setup,
            ),
        )
        if problem:
            self._observer.note(problem)
        return stored
