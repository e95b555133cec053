"""Everything that is known before the first cell: the builds, the model, the texts, the workers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_kvquant.config.expectations import with_packaged
from pytest_kvquant.config.overrides import Expect
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.kept import KeptWorker, SteadinessCheck
from pytest_kvquant.engine.parent.timesheet import Timesheet
from pytest_kvquant.engine.parent.workers import Workers, usual_isolation
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.inputs.beyond import warnings
from pytest_kvquant.inputs.logits_file import LogitsFile
from pytest_kvquant.inputs.model import Model, read_header, read_model
from pytest_kvquant.inputs.reference_store import ReferenceStore
from pytest_kvquant.machine.environment import Environment, hook_in_words, scrub
from pytest_kvquant.machine.files import cache_folder
from pytest_kvquant.matrix import Pair
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.library import Library
from pytest_kvquant.session.builds import measured_engine, reference_engine
from pytest_kvquant.session.from_logits import words_of
from pytest_kvquant.session.library import (
    identify,
    load,
    meet_reference,
    require_comparable,
    require_kernels,
    require_types,
    shares_device,
    used,
)
from pytest_kvquant.session.reading import TextsOfRun
from pytest_kvquant.session.setups import in_words
from pytest_kvquant.session.variables import unread

Note = Callable[[str], None]


class Prepared(NamedTuple):
    """A run that can begin."""

    settings: Settings
    environment: Environment
    """Variables of the workers."""
    setup: dict[str, str]
    """Options of llama.cpp that were given, in words."""
    model: Model
    engine: Engine
    library: Library
    """The measured build."""
    other_engine: Engine | None
    """The build that the reference comes from, where that is not the measured one."""
    reference_library: Library
    texts: TextsOfRun
    logits: LogitsFile | None
    """The file whose logits are the reference, if there is one."""
    workers: Workers
    """Those that measure."""
    task: Task
    reference_task: Task
    """The same for the build that the reference comes from."""
    store: ReferenceStore

    @property
    def embedded(self) -> bool:
        """Whether the model is the one that comes with this package."""
        return self.settings.model is None

    @property
    def other_build(self) -> Library | None:
        """The build that the reference comes from, where that is not the measured one."""
        return None if self.other_engine is None else self.reference_library

    @property
    def timed_against(self) -> Engine | None:
        """The build that speed is compared with, where that is not f16 of the measured one; one
        of another device would mean nothing."""
        return self.other_engine if self.settings.reference_lib is not None else None

    @property
    def reference_first(self) -> bool:
        """Whether all of the reference has to be computed before a cell has its weights loaded.

        So it is where that takes another process with weights on the same device.
        """
        apart = self.other_engine is not None or self.workers.isolation == "fresh"
        return apart and shares_device(self.settings, self.library)

    @property
    def expect(self) -> Mapping[str, Expect]:
        """What is declared of pairs, by the configuration and of the embedded model."""
        return with_packaged(self.settings.expect, embedded=self.embedded)


def prepare(
    settings: Settings,
    shell: Mapping[str, str],
    pairs: Sequence[Pair],
    timesheet: Timesheet,
    note: Note,
    *,
    vocabulary_only: bool,
) -> Prepared:
    """Meet builds, model and texts, and hire the workers.

    Args:
        shell: the variables that the run was started with.
        pairs: of this process.
        vocabulary_only: nothing will be measured: no weights are read, not even for their hash.

    Raises:
        RunRefused: one of them cannot be used.
    """
    model = read_model(
        settings.model or EMBEDDED_MODEL,
        hashed=not vocabulary_only,
        hashes=cache_folder() / "hashes",
        tell=lambda file, size: note(f"{file.name} ({size / 1e9:.1f} GB) is hashed, once"),
    )
    for line in _beyond(model, settings):
        note(line)
    logits, words = words_of(settings)
    environment = scrub(shell, settings.environment)
    engine = measured_engine(settings, shell, environment)
    setup = in_words(settings)
    other = reference_engine(settings, environment)
    if environment.hook:
        note(hook_in_words(environment, environment.hook))
    open_store = functools.cache(lambda: _open_store(settings, note))
    worker = KeptWorker(engine, timesheet=timesheet)
    try:
        library = used(identify(worker, engine), engine, settings.devices, settings.gpu_layers)
        for line in unread(settings.environment, library):
            note(line)
        require_types(pairs, library)
        loaded = load(worker, model, settings.gpu_layers, only=vocabulary_only)
        texts = TextsOfRun(loaded, words, settings, engine, model, open_store, note)
        texts.read(worker, logits, briefly=vocabulary_only)
        if not vocabulary_only and library.gpus_in_use(settings.gpu_layers):
            require_kernels(worker, library)
    except BaseException:
        worker.__exit__(None, None, None)
        raise
    workers = _hire(worker, settings, engine, model, library, timesheet, note)
    if vocabulary_only:
        worker.__exit__(None, None, None)
    else:
        workers.adopt(worker)
        if texts.writes:
            with workers.fresh() as writer:
                texts.write(writer)
    task = texts.main.task._replace(crew=workers)
    workers.check = SteadinessCheck(task.chunks[0], task.shape)
    reference_task, reference_library = task, library
    if other is not None:
        shared = shares_device(settings, library)
        if shared:
            workers.rest()  # one set of weights on a device at a time
        reference_library, its_vocabulary = meet_reference(
            other, settings, model, pairs, vocabulary_only=vocabulary_only
        )
        require_comparable(reference_library, its_vocabulary, library, task.vocabulary, model.name)
        if reference_library.hash == library.hash and not settings.reference_devices:
            note("the reference build and the measured one are the same files")
        crew = _hire_of_reference(settings, other, model, reference_library, timesheet)
        crew.beside = workers if shared else None
        reference_task = task._replace(engine=other, crew=crew)
    return Prepared(
        settings=settings,
        environment=environment,
        setup=setup,
        model=model,
        engine=engine,
        library=library,
        other_engine=other,
        reference_library=reference_library,
        texts=texts,
        logits=logits,
        workers=workers,
        task=task,
        reference_task=reference_task,
        store=open_store(),
    )


def _hire(
    worker: KeptWorker,
    settings: Settings,
    engine: Engine,
    model: Model,
    library: Library,
    timesheet: Timesheet,
    note: Note,
) -> Workers:
    """Those that measure.

    Args:
        worker: the one that has loaded everything; ended where the run is refused.

    Raises:
        SettingsError: cells cannot be kept apart here as was asked for.
    """
    usual = usual_isolation(library)
    if settings.isolation == "fork" and usual != "fork":
        worker.__exit__(None, None, None)
        raise SettingsError(
            "--kv-isolation fork copies a process that has loaded everything; that is sound "
            "only on Linux where the CPU alone computes. Use warm or fresh here."
        )
    return Workers(
        engine,
        model.path,
        settings.gpu_layers,
        settings.isolation or usual,
        timesheet=timesheet,
        note=note,
    )


def _hire_of_reference(
    settings: Settings, engine: Engine, model: Model, library: Library, timesheet: Timesheet
) -> Workers:
    """Those that compute the reference on another build: copies, or fresh ones."""
    copied = usual_isolation(library) == "fork" and settings.isolation in (None, "fork")
    return Workers(
        engine,
        model.path,
        settings.gpu_layers,
        "fork" if copied else "fresh",
        timesheet=timesheet,
    )


def _open_store(settings: Settings, note: Note) -> ReferenceStore:
    folder = settings.store or cache_folder() / "references"
    return ReferenceStore(folder, int(settings.store_limit * 1e9), tell=note)


def _beyond(model: Model, settings: Settings) -> list[str]:
    """What a person should know of contexts that the model was not trained for."""
    longest = max(settings.ctx, settings.recall or 0, *(settings.depths or (0,)))
    return warnings(model, read_header(Path(model.path)), longest, settings.setup)
