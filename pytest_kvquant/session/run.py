"""The composition root of a run: settings → plan → engine → evidence → verdicts.

Owns every lifetime. Cells are measured when they are first asked for and never twice.
"""

from __future__ import annotations

import datetime
import functools
import math
import platform
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import msgspec
import platformdirs
import psutil

from pytest_kvquant import __version__
from pytest_kvquant.baselines.quality import Baseline, BaselineConditions, Baselines, hardware_class
from pytest_kvquant.checks import registry
from pytest_kvquant.checks.answers import answers
from pytest_kvquant.checks.distinct import twins
from pytest_kvquant.checks.family import holm_exit
from pytest_kvquant.checks.judging import owned_gates
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.config.budgets import (
    IDENTICAL,
    Budgets,
    drift_budgets,
    owned_budgets,
    resolve_budgets,
    unused_patterns,
)
from pytest_kvquant.config.expectations import (
    declared_failures,
    off_device,
    substitute,
    substitutes,
    with_packaged,
)
from pytest_kvquant.config.settings import Expect, Settings
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.parent.devices import in_use
from pytest_kvquant.engine.parent.kept import KeptWorker, SteadinessCheck
from pytest_kvquant.engine.parent.timesheet import Timesheet, summed
from pytest_kvquant.engine.parent.worker import Engine, Worker
from pytest_kvquant.engine.parent.workers import Workers, usual_isolation
from pytest_kvquant.errors import (
    CellError,
    CellUnsupported,
    LibraryError,
    ModelError,
    ReferenceBroken,
    RunRefused,
    SettingsError,
)
from pytest_kvquant.escape import throughout
from pytest_kvquant.inputs.corpus import Corpus
from pytest_kvquant.inputs.corpus_names import SELF
from pytest_kvquant.inputs.model import Model, read_model
from pytest_kvquant.inputs.reference_store import Reference, ReferenceStore
from pytest_kvquant.machine.environment import hook_in_words, scrub
from pytest_kvquant.machine.hardware import cpu_name, default_threads
from pytest_kvquant.matrix import REFERENCE, Pair, plan_pairs, take_shard
from pytest_kvquant.numerics.eta import Kind
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.quality import evidence_file, paths
from pytest_kvquant.quality.control import Control
from pytest_kvquant.quality.healthy import EMULATION, WORDS, HealthyGround
from pytest_kvquant.quality.quantizers import Quantizers
from pytest_kvquant.quality.references import References
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task
from pytest_kvquant.report import output
from pytest_kvquant.report.advice import advise
from pytest_kvquant.report.cell_line import in_a_line
from pytest_kvquant.results.baseline import BaselineRecord, BaselinesRecord
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell, Check, NoiseFloor
from pytest_kvquant.results.completeness import ReferenceUse, Selection
from pytest_kvquant.results.conditions import (
    EnvironmentRecord,
    ModelRecord,
    ReferenceRecord,
    SettingsRecord,
)
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.results.library import Library
from pytest_kvquant.results.result import Result, RunTiming, Unmeasured, counted
from pytest_kvquant.session import isolation, pace
from pytest_kvquant.session.builds import measured_engine, reference_engine
from pytest_kvquant.session.cell import CellInputs, checked, figures_per_cell
from pytest_kvquant.session.depends import command_of, depends, file_hash
from pytest_kvquant.session.diagnosing import Prober
from pytest_kvquant.session.excuses import is_excused
from pytest_kvquant.session.finished import Finished, MeasuredCell
from pytest_kvquant.session.from_logits import rounded_reference, tokens_in, words_of
from pytest_kvquant.session.journal import Journal
from pytest_kvquant.session.kernels import make_examiner
from pytest_kvquant.session.ledger import RollCall
from pytest_kvquant.session.observer import Observer, guesses, phase
from pytest_kvquant.session.setups import in_words
from pytest_kvquant.session.speed import SpeedRun
from pytest_kvquant.session.task_plan import plan_rules, plan_shape, plan_text
from pytest_kvquant.session.texts import TextOfRun, TextReader, TextTask, disturbed
from pytest_kvquant.session.workloads import Workloads, plan_recall
from pytest_kvquant.session.zoo import ZooRun


class Session:
    """One run of the matrix.

    Args:
        settings: resolved settings.
        shell: the variables that the run was started with.
        vocabulary_only: nothing will be measured: no weights are read.

    Raises:
        RunRefused: from the constructor, everything that is known before the first cell.
    """

    def __init__(
        self,
        settings: Settings,
        shell: dict[str, str],
        observer: Observer,
        *,
        vocabulary_only: bool = False,
    ) -> None:
        self.settings, self._observer = settings, observer
        self._begun = time.perf_counter()
        self._started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        matrix = plan_pairs(settings.types, settings.pairs, settings.skip)
        self.pairs = take_shard(matrix, settings.shard)
        self._elsewhere = len(matrix) - len(self.pairs)
        """Cells of the matrix that other shards measure: chance is corrected for over all."""
        for pattern in unused_patterns(matrix, settings.budgets):
            observer.note(f"budgets for '{pattern}' match no cell of this run")
        if str(REFERENCE) in settings.budgets:
            observer.note("budgets for 'f16/f16' are not used: batched alike, nothing may differ")
        for pattern in unused_patterns(matrix, settings.drift):
            observer.note(f"drift budgets for '{pattern}' match no cell of this run")
        self.embedded = settings.model is None
        self.model = read_model(
            settings.model or EMBEDDED_MODEL,
            hashes=cache_folder() / "hashes",
            tell=lambda file, size: observer.note(
                f"{file.name} ({size / 1e9:.1f} GB) is hashed, once"
            ),
        )
        self._logits, words = words_of(settings)
        self.environment = scrub(shell, settings.environment)
        self.engine = measured_engine(settings, shell, self.environment)
        self._setup = in_words(settings)
        self._reference_engine = reference_engine(settings, self.environment) or self.engine
        self.timesheet = Timesheet()
        self.timesheet.enter("run", "start", _seconds_before())
        loaded, text = self._meet_library(words, vocabulary_only=vocabulary_only)
        self.corpus, self.task = text.corpus, self._main.task._replace(crew=self.workers)
        self.workers.check = SteadinessCheck(self.task.chunks[0], self.task.shape)
        self.reference_library = self._meet_reference(self.task.vocabulary)
        reference_task = self._reference_task()
        self._store = _open_store(settings, observer.note)
        self.references = self._make_references(reference_task, self._store)
        self._workloads = Workloads(
            reference_task,
            plan_recall(
                text.tokens,
                settings.recall,
                settings.ctx,
                self.model.context_trained,
                loaded["bos"],
                observer.note,
            ),
            [
                one._replace(
                    task=one.task._replace(engine=reference_task.engine, crew=reference_task.crew)
                )
                for one in self._further
            ],
            self._open_text,
        )
        self.references.source(REFERENCE)  # a store that cannot be used is told now
        self._keep_account()
        self.speed = SpeedRun(
            settings,
            self.model,
            self.library,
            self.engine,
            other=self._reference_engine if self._times_against_other else None,
            workers=self.workers,
            threads=self.task.shape.threads,
            expect=self.expect,
            pairs=matrix,
            observer=observer,
        )
        self._prober = Prober(self.task, self.model, settings.probe)
        self._examiner = make_examiner(settings, self.task, self.model, self.library)
        self.zoo = ZooRun(
            settings,
            self.engine,
            self.pairs,
            folder=cache_folder() / "zoo",
            build=self.library.build,
            threads=self.task.shape.threads,
        )
        self.selected = self.pairs
        """Cells of this run that tests ask for, in order."""
        self.announced: set[Pair] = set()
        """Cells whose failure to be measured a test has reported already."""
        self._unmeasured: list[Unmeasured] = []
        self.invocation: list[str] = []
        """Options as typed, for the command that repeats one cell."""
        self._cells: dict[Pair, Cell] = {}
        self._last_finished = time.perf_counter()
        self.failed: set[Pair] = set()
        """Cells of which a test failed."""
        self._waived: list[tuple[Pair, Gate]] = []
        """Failing gates that may have been chance when their test asked."""
        self._distinct: list[Pair] = []
        """Cells that had no twin when their test asked."""
        self._baselines = self._open_baselines()

    def close(self) -> None:
        """End the workers; what was measured stays."""
        self.workers.rest()

    def _keep_account(self) -> None:
        """Nothing is finished yet, and nobody has said what is asked for."""
        self._floors: dict[Pair, NoiseFloor] = {}
        """What each cell was measured against, of this sitting or of an earlier one."""
        self._journal: Journal | None = None
        self._process = ""
        self.broken = ""
        """Why nothing at all can be measured, where that showed on the way."""
        self.ledger = RollCall()
        """The tests of this run; empty where no pytest is around it."""
        self.left_out: tuple[str, ...] = ()
        """Names of tests that were collected and not selected."""
        self._finished = Finished(None, {}, self._started)
        self.complaints: list[str] = []
        """Files that could not be written on the way, a sentence each."""

    def begin(self, *, process: str = "") -> None:
        """Open the journal, once it is known what is asked for: finished parts are kept from here.

        Args:
            process: which of pytest-xdist's this is; the one that controls them holds the journal.
        """
        if self._journal is None:
            self._journal = Journal(
                self._store.root / "journal",
                command_of(self.settings),
                depends(
                    self.model,
                    self.corpus,
                    " ".join(one.record.tokens_hash for one in (self._main, *self._further)),
                    self.library,
                    self.reference_library,
                    self.environment.added,
                ),
                started=self._started,
                fresh=self.settings.fresh,
                shared=bool(process),
                tell=self._observer.note,
            )
        key = {
            "cells": self.cells_in_run,
            "threads": self.task.shape.threads,
            "device": self.library.chip,
            "speed baseline": file_hash(self.settings.speed_baseline),
        }
        self._finished = Finished(self._journal, key, self._started)
        self.speed.finished = self._finished
        self._process = process

    def left_behind(self, heard: Collection[str]) -> list[tuple[str, Result]]:
        """Results so far of pytest-xdist's processes that have not reported, by name."""
        return [] if self._journal is None else self._journal.results(heard)

    def end_run(self) -> None:
        """Let the journal go: of a run that is whole nothing has to be taken over."""
        self._finished.end(whole=self.ledger.whole)

    def measure(self, pair: Pair) -> Cell:
        """The record of a cell, measured now if it has not been.

        Raises:
            RunRefused: the reference cannot be stored.
        """
        if pair not in self._cells:
            measured = self._finished.cell(
                pair, lambda: self._measured(pair), usable=self._has_evidence
            )
            excused = is_excused(
                measured.cell,
                named=str(pair) in self.settings.pairs or pair == REFERENCE,
                accepted=self._baselines is not None and self._baselines.path(str(pair)).exists(),
                strict=self.settings.strict,
                declared=declared_failures(pair, self.library.device, self.expect),
            )
            self._cells[pair] = msgspec.structs.replace(measured.cell, excused=excused)
            if measured.floor is not None:
                self._floors[pair] = measured.floor
            self._finished.keep_reference(self._reference_use())
            if self._process and self._journal is not None:
                # A process that dies, or is never heard, leaves what it has for the others.
                self._journal.keep_result(self._process, self.result())
        return self._cells[pair]

    def finished(self, pair: Pair) -> None:
        """All tests of a cell have run: say how it went, and draw the page of a run that is
        followed."""
        cells = [self.checked(pair)] if pair in self._cells else []
        speeds, ceilings = self.speed.cells([pair]), self.speed.ceilings([pair])
        if not (cells or speeds or ceilings):
            return
        words = in_a_line(
            next(iter(cells), None),
            next(iter(speeds), None),
            next(iter(map(self._judged_ceiling, ceilings)), None),
        )
        now = time.perf_counter()
        self._observer.cell(pair, words, now - self._last_finished)
        self._last_finished = now
        if self.settings.live:
            output.write_live(self.settings, self.result(), self._missing())

    def _missing(self) -> str:
        left = len(self.selected) - len(self.measured)
        return f"{len(self.measured)} of {len(self.selected)} pairs are measured, {left} to come."

    def plan_work(self, measured: int, timed: int, searched: int) -> None:
        """Tell the observer what this run will take, as far as it is known.

        Args:
            measured: pairs whose quality tests ask for.
            timed: pairs whose speed they ask for.
            searched: pairs whose largest context they ask for.
        """
        known = guesses(self.settings, self.model, self.task, self.speed.plan)
        computed = measured and not self.source.complete(0)
        units = {
            "reference": known["reference"][0] if computed else 0.0,
            "control": float(measured > 0),
            "first": float(measured > 0),
            "cell": float(max(measured - 1, 0)),
            "speed": float(timed),
            "ceiling": float(searched),
        }
        earlier = pace.remembered(cache_folder(), self._pace_key)
        kinds = {
            name: Kind(units[name], max(earlier.get(name, known[name][1]), 1e-3)) for name in units
        }
        trusted = all(name in earlier for name in units if units[name])
        self._observer.plan(kinds, len(self.selected), trusted=trusted)

    @property
    def _pace_key(self) -> str:
        """What a run's pace depends on."""
        settings = self.settings
        return pace.key(
            self.model.fingerprint, self.library.hash, self.library.device, self.task.shape,
            settings.profile, settings.chunks, settings.decode, settings.trajectory,
            settings.recall, settings.probe, settings.coverage, self.speed.plan,
            settings.reference_logits,
        )  # fmt: skip

    def remember_pace(self) -> None:
        """Keep what the parts of this run took, for the forecast of the next one."""
        if rates := self._observer.rates():
            pace.remember(cache_folder(), self._pace_key, rates)

    @property
    def pairs_asked(self) -> list[Pair]:
        """Cells that the tests of this run ask for."""
        return self.selected

    @property
    def measured(self) -> list[Pair]:
        """Cells that were measured so far."""
        return [pair for pair in self.pairs if pair in self._cells]

    @property
    def cells_in_run(self) -> int:
        """Cells among which chance is corrected for: those of the other shards count."""
        return len(self.selected) + self._elsewhere

    def budgets(self, pair: Pair) -> Budgets:
        """Budgets of a cell; against the same pair of another build, those of a drift.

        Raises:
            CellError: they follow from the noise floor, and it cannot be measured.
        """
        if self.other_build is not None and self.references.pair(pair) == pair:
            # Rounding alone moves a quantized value by a whole step: f16's own noise counts too.
            floors = [self.control(one).floor for one in (pair, REFERENCE)]
            return drift_budgets(pair, floors, self.settings.drift, registry.default_budgets())
        if self._logits is not None and pair == REFERENCE:
            return rounded_reference()
        return resolve_budgets(
            pair,
            embedded=self.embedded,
            overrides=self.settings.budgets,
            defaults=registry.default_budgets(),
        )

    def stands_now(self, pair: Pair, gate: Gate) -> bool:
        """Whether a failing gate counts for the exit code whatever the cells to come show.

        Holm's first step: p <= alpha/m. What is left to its further steps is remembered, and told
        by :meth:`objections` if they keep it.
        """
        if gate.p_value <= gate.alpha / (figures_per_cell() * self.cells_in_run):
            return True
        self._waived.append((pair, gate))
        return False

    def distinct_so_far(self, pair: Pair) -> None:
        """Take note that a test found no twin of a cell among those measured until then."""
        self._distinct.append(pair)

    def objections(self) -> list[str]:
        """What cells measured later made of verdicts that were given before them, in sentences.

        Each fails the run. Nothing that failed before is taken back: what Holm's first step
        rejects, its further steps reject too.
        """
        found = [
            f"{pair}: {gate.name} fails after all, now that the whole matrix is known (Holm)"
            for pair, gate in self._waived
            if self.stands(pair, gate)
        ]
        for pair in self._distinct:
            found_twins = twins(self._cells[pair], list(self._cells.values()))
            if found_twins:
                found.append(f"{pair} has the very same logits as {', '.join(found_twins)}")
        return found

    def owned(self, pair: Pair) -> frozenset[str]:
        """Absolute gates that count: all of ours, those between builds, and the owner's own."""
        every = self.embedded or self.settings.compare_cells
        return owned_gates(owned_budgets(pair, self.settings.budgets, every=every))

    def stands(self, pair: Pair, gate: Gate) -> bool:
        """Whether a failing gate counts for the exit code, in the light of the whole matrix.

        Holm over every gated figure of the run; a cell not measured yet speaks for nothing. A gate
        that a test judged with budgets of its own takes the place of the cell's.
        """
        owned = [
            (one, gate if one == pair and other.name == gate.name else other)
            for one in self._cells
            for other in self._cells[one].gates
        ]
        if (pair, gate) not in owned:
            owned.append((pair, gate))
        unmeasured = figures_per_cell() * (self.cells_in_run - len(self._cells))
        kept = holm_exit([gate for _, gate in owned], unmeasured=max(0, unmeasured))
        return (pair, gate) in [one for one, keep in zip(owned, kept, strict=True) if keep]

    def baseline(self, pair: Pair) -> BaselineRecord | None:
        """A measured cell beside its baseline; ``None`` where there is nothing to compare."""
        cell = self.measure(pair)
        if self._baselines is None or not cell.gates:
            return None
        return self._baselines.compare(cell, self._floor(pair).kl)

    def as_baseline(self, pair: Pair) -> Baseline:
        """A measured cell as it is accepted."""
        assert self._baselines is not None
        return self._baselines.of(self.measure(pair), self._floor(pair).kl)

    @property
    def has_baselines(self) -> bool:
        """Whether cells are compared with what was accepted earlier."""
        return self._baselines is not None

    def baseline_path(self, pair: Pair) -> Path:
        """The file of a cell's baseline."""
        assert self._baselines is not None
        return self._baselines.path(str(pair))

    def refusal(self, pair: Pair) -> str:
        """Why the figures of a cell must not be accepted, however much asked for; or nothing."""
        others = [test for test in self.ledger.open_of(str(pair)) if "test_baseline" not in test]
        if others:
            return f"{len(others)} of its tests have not ended"
        cell = self.checked(pair)
        wrong: list[str] = [gate.name for gate in cell.gates if gate.verdict == "fail"]
        wrong += [check.name for check in cell.checks if check.verdict == "fail"]
        return f"it fails {', '.join(wrong)}" if wrong else ""

    def accepted(self, pair: Pair) -> None:
        """Take note that the figures of a cell were written as its baseline."""
        assert self._baselines is not None
        self._baselines.accepted(str(pair))

    def nothing_measured(self, reason: str, *, is_open: bool) -> None:
        """Take note that a speed test measured nothing; see :class:`Unmeasured`."""
        self._unmeasured.append(Unmeasured(reason=reason, tests=1, open=is_open))

    def result(self) -> Result:
        """The record of the run so far."""
        usage = self._finished.reference(self._reference_use())
        floors = [*self._floors.values(), *(one.floor for one in self.references.known())]
        cells = tuple(self.checked(pair) for pair in self.pairs if pair in self._cells)
        speeds = self.speed.cells(self.pairs)
        ceilings = tuple(map(self._judged_ceiling, self.speed.ceilings(self.pairs)))
        return Result(
            environment=self._environment_record(),
            model=ModelRecord(
                path=self.model.path,
                name=self.model.name,
                architecture=self.model.architecture,
                fingerprint=self.model.fingerprint,
                size=self.model.size,
                vocabulary=self.task.vocabulary,
                context_trained=self.model.context_trained,
            ),
            corpus=self._main.record,
            texts=tuple(one.record for one in self._further),
            settings=self._shape_record(),
            reference=ReferenceRecord(
                computed=usage.computed,
                reused=usage.reused,
                damaged=usage.damaged,
                decode_seconds=self.references.decode_seconds,
                library=self.other_build,
                by_cell=self.settings.compare_cells,
                file=str(self._logits.path) if self._logits is not None else "",
            ),
            floor=max(floors, key=_noise, default=None),
            cells=cells,
            speed=speeds,
            advice=advise(cells, speeds, ceilings, by_cell=self.settings.compare_cells),
            ceilings=ceilings,
            unmeasured=counted(self._unmeasured),
            zoo=self.zoo.cells,
            hardware=self.speed.hardware if self.speed.on else None,
            baselines=self._baselines_record(),
            invocation=tuple(self.invocation),
            complete=self.ledger.whole,
            unfinished=tuple(self.ledger.unfinished),
            interruption=self.ledger.reason,
            selection=self._selection(),
            sittings=self._finished.sittings(),
            decode_seconds=self._decode_seconds(),
            seconds=time.perf_counter() - self._begun,
            timing=self._run_timing(),
        )

    def _meet_library(
        self, words: list[Corpus | str], *, vocabulary_only: bool
    ) -> tuple[dict[str, Any], TextOfRun]:
        """Load library and model, read and cut the texts: what the worker says of the model, and
        the run's own text.

        Raises:
            RunRefused: one of them cannot be used.
        """
        if hook := self.environment.hook:
            self._observer.note(hook_in_words(self.environment, hook))
        worker = KeptWorker(self.engine, timesheet=self.timesheet)
        try:
            self.library = self._restricted(_identify(worker, self.engine))
            _check_types(self.pairs, self.library)
            loaded = _load(worker, self.model, self.settings.gpu_layers, only=vocabulary_only)
            reader = self._text_reader(loaded)
            texts = [reader.read(worker, word) for word in words if word != SELF]
            texts = tokens_in(self._logits, texts, int(loaded["vocabulary"]), self.model.name)
            (self._main, *self._further) = [self._cut(text, loaded) for text in texts]
            if self.settings.robustness or self.settings.profile == "nightly":
                main = self._main
                self._further += disturbed(
                    worker, main.task, main.record, loaded["bos"], self.settings.seed
                )
            if not vocabulary_only and self.library.gpus_in_use(self.settings.gpu_layers):
                _require_kernels(worker, self.library)
        except BaseException:
            worker.__exit__(None, None, None)
            raise
        self.workers = self._hire(worker, kept=not vocabulary_only)
        if SELF in words and not vocabulary_only:
            with self.workers.fresh() as writer:
                written = reader.write(writer)
            self._further.append(self._cut(written, loaded))
        return loaded, texts[0]

    def _text_reader(self, loaded: dict[str, Any]) -> TextReader:
        settings, trained = self.settings, self.model.context_trained
        if trained and settings.ctx > trained:
            self._observer.note(
                f"--kv-ctx {settings.ctx} exceeds the {trained} tokens that {self.model.name} "
                "was trained for: expect a large perplexity in every cell"
            )
        return TextReader(
            loaded,
            plan_shape(settings, int(loaded["vocabulary"]), default_threads()),
            plan_rules(settings).cap,
            settings,
            self.model.fingerprint,
            lambda: _open_store(self.settings, self._observer.note),
        )

    def _cut(self, text: TextOfRun, loaded: dict[str, Any]) -> TextTask:
        """A text cut into the chunks that cells are measured on."""
        if remark := text.corpus.remark:
            self._observer.note(f"corpus {text.corpus.name}: {remark}")
        vocabulary = int(loaded["vocabulary"])
        return plan_text(
            text,
            self.settings,
            engine=self.engine,
            model=self.model.path,
            shape=plan_shape(self.settings, vocabulary, default_threads()),
            vocabulary=vocabulary,
            bos=loaded["bos"],
        )

    def _open_text(self, pair: Pair, text: TextTask) -> Reference:
        return self._open_store(self._store, pair, text.record.fingerprint)

    def _hire(self, worker: KeptWorker, *, kept: bool) -> Workers:
        """Those that measure; the one that has just loaded everything is the first of them."""
        workers = Workers(
            self.engine,
            self.model.path,
            self.settings.gpu_layers,
            self.settings.isolation or usual_isolation(self.library),
            timesheet=self.timesheet,
            note=self._observer.note,
        )
        if self.settings.isolation == "fork" and usual_isolation(self.library) != "fork":
            raise SettingsError(
                "--kv-isolation fork copies a process that has loaded everything; that is sound "
                "only on Linux where the CPU alone computes. Use warm or fresh here."
            )
        if kept:
            workers.adopt(worker)
        else:
            worker.__exit__(None, None, None)
        return workers

    def _meet_reference(self, vocabulary: int) -> Library:
        """The library that the reference comes from, if it can be compared with the measured one.

        Raises:
            LibraryError: it cannot be loaded, or reads the model in another way.
            SettingsError: it lacks a cache type.
        """
        engine, settings = self._reference_engine, self.settings
        if engine is self.engine:
            return self.library
        with Worker(engine) as worker:
            try:
                words = settings.reference_devices or settings.devices
                library = in_use(_identify(worker, engine), words, settings.gpu_layers)
                found = int(_load(worker, self.model, settings.gpu_layers)["vocabulary"])
            except (LibraryError, ModelError) as error:
                flag = "lib" if settings.reference_lib is not None else "devices"
                raise LibraryError(f"--kv-reference-{flag}: {error}") from None
        _check_types(self.pairs if settings.compare_cells else [REFERENCE], library)
        if found != vocabulary:
            raise LibraryError(
                f"--kv-reference-lib {library.path} reads {found} tokens from the vocabulary of "
                f"{self.model.name}, {self.library.path} reads {vocabulary}: their logits cannot "
                "be compared."
            )
        if library.hash == self.library.hash and not settings.reference_devices:
            self._observer.note("the reference build and the measured one are the same files")
        return library

    def _make_references(self, task: Task, store: ReferenceStore) -> References:
        plan = paths.plan(
            self.task.chunks,
            decode_tokens=self.settings.decode,
            trajectory_tokens=self.settings.trajectory,
            sequences=self.task.shape.sequences,
        )
        return References(
            task,
            plan,
            lambda pair: self._open_store(store, pair, self.corpus.fingerprint),
            self._reference_computed,
            by_cell=self.settings.compare_cells,
            file=self._logits,
        )

    def _reference_task(self) -> Task:
        """The task for the build that the reference comes from."""
        engine, settings = self._reference_engine, self.settings
        if engine is self.engine:
            return self.task
        usual = usual_isolation(self.reference_library)
        copied = usual == "fork" and settings.isolation in (None, "fork")
        workers = Workers(
            engine,
            self.model.path,
            settings.gpu_layers,
            "fork" if copied else "fresh",
            timesheet=self.timesheet,
        )
        return self.task._replace(engine=engine, crew=workers)

    def _open_store(self, store: ReferenceStore, pair: Pair, fingerprint: str) -> Reference:
        rows, vocabulary = self.task.shape.scored, self.task.vocabulary
        return store.open(self._identity(pair, fingerprint), rows=rows, vocabulary=vocabulary)

    def _identity(self, pair: Pair, fingerprint: str) -> dict[str, object]:
        """Everything that the logits of a pair on a text, on the reference build, depend on."""
        return {
            **({} if pair == REFERENCE else {"pair": str(pair)}),
            "model": self.model.fingerprint,
            "corpus": [fingerprint, self.settings.order, self.settings.seed],
            "gpu_layers": self.task.gpu_layers,
            "shape": msgspec.to_builtins(self.task.shape),
            "library": self.reference_library.hash,
            "device": self.reference_library.chip,
            "environment": self.environment.added,
            **({"setup": self._setup} if self._setup else {}),
        }

    @functools.cached_property
    def _quantizers(self) -> Quantizers:
        """How the types of the measured build round; each is asked once."""
        types = self.library.types
        return Quantizers(self.task, {name: (t.block, t.bytes) for name, t in types.items()})

    @property
    def _emulation(self) -> HealthyGround | None:
        """What healthy cells are emulated with; a cell beside itself needs none."""
        if self.settings.compare_cells:
            return None

        def open_store(pair: Pair, path: str, rows: int) -> Reference:
            identity = self._identity(REFERENCE, self.corpus.fingerprint) | {
                "emulated": str(pair),
                "path": path,
                "rows": rows,
                "by": self.library.hash,
                "format": EMULATION,
            }
            return self._store.open(identity, rows=rows, vocabulary=WORDS)

        return HealthyGround(self.task, self.model, open_store)

    def _restricted(self, library: Library) -> Library:
        """The library with the device of this process, where one was asked for."""
        return in_use(library, self.settings.devices, self.settings.gpu_layers)

    def _selection(self) -> Selection:
        return Selection(
            pairs=tuple(map(str, self.selected)),
            of=len(self.pairs) + self._elsewhere,
            tests=tuple(self.ledger.tests()),
            left_out=self.left_out,
            shard=self.settings.shard or "",
        )

    def _floor(self, pair: Pair) -> NoiseFloor:
        """What f16 showed against itself where a measured cell was measured."""
        return self._floors[pair] if pair in self._floors else self.control(pair).floor

    def _reference_use(self) -> ReferenceUse:
        usage = self.references.usage()
        return ReferenceUse(computed=usage.computed, reused=usage.reused, damaged=usage.damaged)

    def _measured(self, pair: Pair) -> MeasuredCell:
        """A cell measured now; a fault of our own code is that cell's verdict, told once."""
        try:
            found = self._measure(pair)
        except RunRefused as error:
            if isinstance(error, ReferenceBroken):
                self.broken = str(error)
            found = Cell(pair=str(pair), verdict="no-reference", message=str(error))
        except Exception as error:
            found = Cell(
                pair=str(pair),
                verdict="error",
                message=f"pytest-kvquant itself failed ({type(error).__name__}: {error}); please "
                "report it with the traceback.",
                traceback=traceback.format_exc(),
            )
        control = self.references.known_of(pair)
        return MeasuredCell(cell=found, floor=control.floor if control is not None else None)

    def _measure(self, pair: Pair) -> Cell:
        with phase(self._observer, "cell" if self._cells else "first", pair):
            return self._measure_in_phase(pair)

    def _measure_in_phase(self, pair: Pair) -> Cell:
        cap = len(self.task.chunks)

        def on_chunk(done: int) -> None:
            self._observer.step(f"{done} of at most {cap} chunks", done, 0)

        on_chunk(0)
        try:
            control, budgets = self.control(pair), self.budgets(pair)
            self._workloads.prepare(self.references.pair(pair))
        except CellError as error:
            compared = self.references.pair(pair)
            where = " of the reference build" if self.other_build is not None else ""
            return Cell(
                pair=str(pair),
                verdict=error.verdict,
                message=f"{compared}{where}, which it is compared with, failed: {error}",
                log=error.log,
            )
        inputs = CellInputs(
            self.task,
            self.references.source(pair),
            control,
            self.model,
            self.library,
            self.cells_in_run,
            self._prober,
            self._workloads,
            off_device=self._off_device,
            emulation=self._emulation,
            quantizers=self._quantizers,
            owned=self.owned(pair),
            same_pair=self.settings.compare_cells,
            examiner=self._examiner,
            expect=self.settings.expect,
            fail_fast=self.settings.fail_fast,
        )
        measured = isolation.measure(
            pair, budgets, self._expected(pair), inputs, on_chunk, self._doubt
        )
        if measured.evidence is not None:
            self._keep(pair, measured.evidence, budgets)
        return measured.cell

    def _reference_computed(self, done: int, of: int) -> None:
        """So many of the missing chunks of the reference were computed; 0: it begins."""
        if not done:
            self._observer.begin("reference")
        self._observer.step(f"{done} of {of} chunks", done, of)
        if done == of:
            self._observer.end(of)

    def _doubt(self, own: Cell) -> str:
        """Whether the logits of a cell are those of another one, in words."""
        same = twins(own, list(self._cells.values()))
        return f"its logits were those of {', '.join(same)}" if same else ""

    @property
    def source(self) -> ReferenceSource:
        """The reference's logits."""
        return self.references.source(REFERENCE)

    @property
    def _times_against_other(self) -> bool:
        """Whether speed is that of another build; one of another device would mean nothing."""
        return self.other_build is not None and self.settings.reference_lib is not None

    @property
    def other_build(self) -> Library | None:
        """The build that the reference comes from, where that is not the measured one."""
        return None if self._reference_engine is self.engine else self.reference_library

    def control(self, pair: Pair = REFERENCE) -> Control:
        """What the side measurements of a cell are compared with, measured once.

        Raises:
            CellError: it cannot be measured; tried once, told every time.
        """
        if self.references.has_control(pair):
            return self.references.control(pair)
        with phase(self._observer, "control", pair):
            return self.references.control(pair)

    def _expected(self, pair: Pair) -> str | None:
        """What the configuration says that this pair is substituted by."""
        return substitute(pair, substitutes(self.expect))

    @functools.cached_property
    def expect(self) -> dict[str, Expect]:
        """What is declared of pairs, by the configuration and of the embedded model."""
        return with_packaged(self.settings.expect, embedded=self.embedded)

    @functools.cached_property
    def _off_device(self) -> frozenset[Pair]:
        """Pairs that are declared to leave their attention to the CPU on this device."""
        device = self.library.device
        return frozenset(pair for pair in self.pairs if off_device(pair, self.expect, device))

    def _keep(self, pair: Pair, evidence: Evidence, budgets: Budgets) -> None:
        """Write the per-token figures where they were asked for."""
        if self.settings.evidence is None or not evidence.complete:
            return
        task = self.task
        conditions = evidence_file.EvidenceConditions(
            pair=str(pair),
            model=self.model.name,
            model_fingerprint=self.model.fingerprint,
            embedded=self.embedded,
            corpus=self.corpus.name,
            corpus_fingerprint=self.corpus.fingerprint,
            tokens_hash=task.tokens_hash,
            chunk_numbers=tuple(self._main.record.chunks[: evidence.complete]),
            order=self.settings.order,
            seed=self.settings.seed,
            shape=task.shape,
            library=self.library.build,
            library_hash=self.library.hash,
            device=self.library.device,
            environment=self.environment.added,
            budgets=budgets.batched,
            rules=task.rules,
            tie_band=evidence.tie_band,
            figures_in_run=figures_per_cell() * self.cells_in_run,
            digests=evidence.digests(),
            plugin=__version__,
        )
        try:
            evidence_file.write(self.settings.evidence, conditions, evidence)
        except evidence_file.EvidenceError as error:  # the cell's own figures are not lost with it
            self.complaints.append(str(error))

    def _has_evidence(self, earlier: Cell) -> bool:
        """Whether the per-token figures of an earlier sitting's cell are there, if asked for."""
        folder = self.settings.evidence
        if folder is None or not earlier.per_chunk:
            return True
        return evidence_file.has(folder, earlier.pair, earlier.digests)

    def checked(self, pair: Pair) -> Cell:
        """The record of a cell in the light of the whole matrix.

        Failing gates that may be chance among so many are named in ``alone``; a cell that is
        bit-identical to another one with another census is ``aliased``.
        """
        own = self._cells[pair]
        failing = [gate for gate in own.gates if gate.verdict == "fail"]
        alone = tuple(gate.name for gate in failing if not self.stands(pair, gate))
        verdict = own.verdict
        if alone and len(alone) == len(failing) and verdict == "fail":
            facts = any(check.verdict == "fail" for check in own.checks)
            verdict = "fail" if facts else "inconclusive"
        own = msgspec.structs.replace(own, verdict=verdict)
        seen = checked(self._in_matrix(pair, own), "matrix").cell
        failed = {check.name for check in seen.checks[len(own.checks) :] if check.verdict == "fail"}
        if "distinct" in failed:
            verdict = "aliased"
        elif failed and verdict in ("pass", "inconclusive"):
            verdict = "fail"
        told = answers(own.gates, seen.checks, alone)
        return msgspec.structs.replace(
            seen,
            verdict=verdict,
            kernel=told.kernel,
            fitness=told.fitness,
            not_significant=alone,
            baseline=self.baseline(pair),
        )

    def footprint(self, pair: Pair) -> Check | None:
        """The memory of a measured cell against its floor.

        ``None`` for a cell without a census, or that is not what its name says.
        """
        own = self.measure(pair)
        seen = checked(self._in_matrix(pair, own), "matrix").cell
        return next((one for one in seen.checks if one.name == "footprint"), None)

    def _in_matrix(self, pair: Pair, own: Cell) -> Subject:
        """A measured cell beside all others of the run."""
        return Subject(
            pair=pair,
            cell=own,
            budgets=IDENTICAL,
            compression_floor=self.speed.floors(pair, 0).compression,
            others=tuple(self._cells.values()),
            declared=declared_failures(pair, self.library.device, self.expect),
        )

    def ceiling(self, pair: Pair) -> Ceiling:
        """The largest context of a pair against its floor, searched now if it has not been."""
        return self._judged_ceiling(self.speed.ceiling(pair))

    def _judged_ceiling(self, found: Ceiling) -> Ceiling:
        return found.against(self.speed.floors(Pair.parse(found.pair), 0).context or 1)

    def _decode_seconds(self) -> float:
        cells = sum(cell.timing.decode for cell in self._cells.values() if cell.timing)
        controls = sum(one.decode_seconds for one in self.references.known())
        return cells + controls + self.references.decode_seconds

    def _run_timing(self) -> RunTiming:
        spent = self.timesheet.seconds()
        return RunTiming(
            wall=sum(spent.values()), parts=summed(spent, by=1), scopes=summed(spent, by=0)
        )

    def _open_baselines(self) -> Baselines | None:
        """Baselines are of a build against its own f16: another reference has none."""
        settings, task = self.settings, self.task
        if settings.baselines is None or self.other_build is not None:
            return None
        conditions = BaselineConditions(
            model=self.model.name,
            model_fingerprint=self.model.fingerprint,
            corpus=self.corpus.name,
            corpus_fingerprint=self.corpus.fingerprint,
            library=self.library.build,
            library_hash=self.library.hash,
            device=self.library.device,
            cpu=cpu_name(platform.processor()),
            gpu_layers=task.gpu_layers,
            environment={**settings.environment, **self._setup},
            plugin=__version__,
            **msgspec.to_builtins(task.shape),
        )
        hardware = hardware_class(self.library, platform.machine(), task.gpu_layers)
        return Baselines(settings.baselines, hardware, conditions, task.chunks)

    def _baselines_record(self) -> BaselinesRecord | None:
        if self._baselines is None:
            return None
        whole = not self.settings.pairs and not self._elsewhere and self.selected == self.pairs
        return self._baselines.record(self.pairs, whole=whole)

    def _environment_record(self) -> EnvironmentRecord:
        return EnvironmentRecord(
            library=self.library,
            machine=platform.machine(),
            system=f"{platform.system()} {platform.release()}",
            cpu=cpu_name(platform.processor()),
            memory=psutil.virtual_memory().total,
            python=platform.python_version(),
            plugin=__version__,
            variables_dropped=self.environment.dropped,
            variables_set=self.environment.added,
            worker_hook=self.environment.hook,
            started=self._started,
        )

    def _shape_record(self) -> SettingsRecord:
        settings, task = self.settings, self.task
        return SettingsRecord(
            **msgspec.to_builtins(task.shape),
            gpu_layers=task.gpu_layers,
            order=settings.order,
            seed=settings.seed,
            profile=settings.profile,
            cap=task.rules.cap,
            early=task.rules.early,
            strict=settings.strict,
            setup=self._setup,
        )


def _noise(floor: NoiseFloor) -> float:
    """How loud; a floor that is no number is the loudest."""
    return math.inf if math.isnan(floor.kl) else floor.kl


def _open_store(settings: Settings, tell: Callable[[str], None]) -> ReferenceStore:
    folder = settings.store or cache_folder() / "references"
    return ReferenceStore(folder, int(settings.store_limit * 1e9), tell=tell)


def _identify(worker: Worker, engine: Engine) -> Library:
    try:
        identity = worker.library(engine.directory, full=True)
    except CellUnsupported as error:  # says everything itself
        raise LibraryError(str(error)) from None
    except CellError as error:
        raise LibraryError(f"{error} It was started by {engine.python}.{error.last_line}") from None
    return msgspec.convert(throughout(identity), Library)


def _load(worker: Worker, model: Model, gpu_layers: int, *, only: bool = False) -> dict[str, Any]:
    """What the worker says of the model, or of its vocabulary, that it has loaded."""
    try:
        return worker.model(model.path, gpu_layers=gpu_layers, vocabulary_only=only)
    except CellError as error:
        raise ModelError(f"{error}{error.last_line}") from None


def _require_kernels(worker: Worker, library: Library) -> None:
    """A GPU that computes no f16 has nothing that a cell could be compared with."""
    try:
        worker.operations(REFERENCE, threads=1)
    except CellError as error:
        raise LibraryError(f"{library.device} decodes no {REFERENCE}. {error}") from None


def _check_types(pairs: Iterable[Pair], library: Library) -> None:
    possible = [name for name, kind in library.types.items() if kind.cache]
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        if name in possible:
            continue
        reason = "cannot hold a KV cache" if name in library.types else "is not a type"
        raise SettingsError(
            f"The cache type '{name}' {reason} of this library ({library.build}). "
            f"It has: {', '.join(possible)}."
        )


def _seconds_before() -> float:
    """Since this process was started: the interpreter, pytest, imports."""
    return max(0.0, time.time() - psutil.Process().create_time())


def cache_folder() -> Path:
    """Where this user's machine keeps what can be made again."""
    return Path(platformdirs.user_cache_dir("pytest-kvquant"))
