"""What a run would use, and what is wrong with it, in about a second and without measuring."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from pytest_kvquant import __version__
from pytest_kvquant.cli.doctor_device import lines, try_pairs
from pytest_kvquant.cli.doctor_report import PairRow, Remark, Report
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.data import EMBEDDED_CORPUS, EMBEDDED_MODEL
from pytest_kvquant.engine.options import flag
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError, RunRefused, SettingsError
from pytest_kvquant.inputs import geometry
from pytest_kvquant.inputs.model import Model, read_model
from pytest_kvquant.inputs.reference_store import ReferenceStore
from pytest_kvquant.machine import memory
from pytest_kvquant.machine.environment import TOGGLES, scrub
from pytest_kvquant.machine.files import cache_folder
from pytest_kvquant.matrix import Pair, plan_pairs
from pytest_kvquant.results.library import Device, Library
from pytest_kvquant.session.builds import measured_engine, reference_engine
from pytest_kvquant.session.library import identify, used
from pytest_kvquant.session.readiness import refusal, settle
from pytest_kvquant.session.texts import open_files

METAL = "MTL"
"""How llama.cpp's names of Apple's devices begin."""

FREE_SHARE = 0.9
"""Of a device's free memory, what a cache may take: compute buffers need the rest."""


def examine(
    typed: Mapping[str, str | None],
    *,
    config: Path | None,
    root: Path,
    shell: Mapping[str, str],
    kernels: bool = False,
    processes: int = 0,
) -> Report:
    """Look at everything that a run depends on; nothing is raised, everything is told.

    Whether a run would start is asked of the run itself; the rest says why, and what it would use.

    Args:
        typed: options as typed, by field name.
        config, root: as :func:`pytest_kvquant.config.resolver.resolve` takes them.
        shell: the variables of the shell.
        kernels: load the weights onto any GPU to try its kernels; Apple's, which map them from the
            file, are always tried.
        processes: of pytest-xdist, as ``-n`` has them.
    """
    seen = _Examination()
    with ThreadPoolExecutor(1) as beside:  # each starts a process, and waits for it
        asked = beside.submit(
            refusal, typed, config=config, root=root, shell=shell, processes=processes
        )
        _examine(seen, typed, config, root, shell, kernels=kernels)
        refused, remarks = asked.result()
    if refused and not any(finding.wrong for finding in seen.findings):
        seen.tell("run", refused, wrong=True)
    for line in remarks:
        seen.tell("remark", line)
    return seen.report()


def _examine(
    seen: _Examination,
    typed: Mapping[str, str | None],
    config: Path | None,
    root: Path,
    shell: Mapping[str, str],
    *,
    kernels: bool,
) -> None:
    """What a run depends on, piece by piece: what is wrong is told where it belongs."""
    seen.tell("plugin", f"pytest-kvquant {__version__}, Python {platform.python_version()}")
    try:
        settings = settle(typed, config=config, root=root)
        planned = plan_pairs(settings.types, settings.pairs, settings.skip)
    except RunRefused as error:
        seen.tell("settings", str(error), wrong=True)
        return
    model = _examine_model(seen, settings)
    library = _examine_library(seen, settings, dict(shell), model)
    _examine_environment(seen, settings, shell)
    _examine_folders(seen, settings)
    if library is not None:
        seen.types = tuple(name for name, kind in library.types.items() if kind.cache)
        _examine_pairs(seen, planned, model, library, settings)
        gpus = library.gpus_in_use(settings.gpu_layers)
        if model is not None and gpus and (kernels or gpus[0].name.startswith(METAL)):
            _examine_kernels(seen, planned, model, library, settings, shell)


class _Examination:
    def __init__(self) -> None:
        self.findings: list[Remark] = []
        self.pairs: list[PairRow] = []
        self.types: tuple[str, ...] = ()

    def tell(self, name: str, text: str, *, wrong: bool = False) -> None:
        self.findings.append(Remark(name=name, text=text, wrong=wrong))

    def report(self) -> Report:
        return Report(findings=tuple(self.findings), pairs=tuple(self.pairs), types=self.types)


def _examine_model(seen: _Examination, settings: Settings) -> Model | None:
    try:
        model = read_model(settings.model or EMBEDDED_MODEL, hashed=False)
    except RunRefused as error:
        seen.tell("model", str(error), wrong=True)
        return None
    own = "embedded" if settings.model is None else model.path
    cached = sum(1 for heads in model.n_head_kv if heads)
    seen.tell(
        "model",
        f"{model.name} ({own}): {model.architecture}, {model.n_layer} layers, {cached} with a KV "
        f"cache, {model.n_head} query and {max(model.n_head_kv, default=0)} KV heads of "
        f"{model.head_dim_k}, trained on {model.context_trained:,} tokens",
    )
    return model


def _examine_library(
    seen: _Examination, settings: Settings, shell: dict[str, str], model: Model | None
) -> Library | None:
    environment = scrub(shell, settings.environment)
    try:
        measured = measured_engine(settings, shell, environment)
        reference = reference_engine(settings, environment)
    except RunRefused as error:
        seen.tell("library", str(error), wrong=True)
        return None
    if reference is not None:
        seen.tell("reference", "the f16 reference comes from the build in the next lines")
        _examine_build(seen, reference, settings, model)
        seen.tell("measured", "the build that is measured:")
    return _examine_build(seen, measured, settings, model)


def _examine_build(
    seen: _Examination, engine: Engine, settings: Settings, model: Model | None
) -> Library | None:
    try:
        with Worker(engine) as worker:
            library = identify(worker, engine)
            _tell_library(seen, library, engine)
            library = used(library, engine, settings.devices, settings.gpu_layers)
            if model is not None:
                worker.model(model.path, gpu_layers=settings.gpu_layers, vocabulary_only=True)
    except SettingsError as error:
        seen.tell("device", str(error), wrong=True)
        return library
    except RunRefused as error:
        seen.tell("library", str(error), wrong=True)
        return None
    except CellError as error:
        seen.tell("library", f"{error}{error.last_line}", wrong=True)
        return None
    return library


def _tell_library(seen: _Examination, library: Library, engine: Engine) -> None:
    seen.tell("library", f"{library.path}: llama.cpp {library.build}, hash {library.hash}")
    seen.tell(
        "bindings",
        f"llama-cpp-python {library.bindings} under {engine.python}: struct layout and defaults "
        "fit the library (ABI check)",
    )
    types = ", ".join(name for name, kind in library.types.items() if kind.cache)
    seen.tell("types", types)
    for device in library.devices:
        said = (
            "helps the CPU, on its memory"
            if device.accelerator
            else f"{_free(device) / 1e9:.1f} of {device.total / 1e9:.1f} GB free"
        )
        seen.tell("device", f"{device.name} ({device.description}), {said}")


def _examine_environment(seen: _Examination, settings: Settings, shell: Mapping[str, str]) -> None:
    found = scrub(shell, settings.environment)
    dropped = ", ".join(f"{name}={value}" for name, value in found.dropped.items())
    added = ", ".join(f"{name}={value}" for name, value in settings.environment.items())
    text = f"left out: {dropped}" if dropped else f"no {'*, '.join(TOGGLES)}* in the shell"
    seen.tell("environment", text + (f"; set: {added}" if added else ""))


def _examine_folders(seen: _Examination, settings: Settings) -> None:
    try:
        open_files(settings.corpus)
        for word in settings.corpus or (str(EMBEDDED_CORPUS),):
            seen.tell("corpus", word)
    except RunRefused as error:
        seen.tell("corpus", str(error), wrong=True)
    store = settings.store or cache_folder() / "references"
    try:
        kept = ReferenceStore(store, int(settings.store_limit * 1e9))
        used = kept.used()
    except RunRefused as error:
        seen.tell("store", str(error), wrong=True)
        return
    free = shutil.disk_usage(kept.root).free
    seen.tell(
        "store",
        f"{kept.root}: {used / 1e9:.2f} of at most {settings.store_limit:g} GB, "
        f"{free / 1e9:.1f} GB of disk free",
    )


def _examine_pairs(
    seen: _Examination,
    planned: list[Pair],
    model: Model | None,
    library: Library,
    settings: Settings,
) -> None:
    unknown = dict.fromkeys(name for pair in planned for name in pair if name not in seen.types)
    for name in unknown:
        why = "cannot hold a KV cache" if name in library.types else "is not a type of this library"
        seen.tell("types", f"'{name}' {why}", wrong=True)
    if model is None:
        return
    types = msgspec.to_builtins(library.types)
    full = flag(settings.setup, "swa-full", False)
    for pair in planned:
        if any(name in unknown for name in pair):
            continue
        expected = geometry.expect(model, pair, types)
        need = geometry.need(model, pair, types, ubatch=settings.ubatch, swa_full=full)
        seen.pairs.append(
            PairRow(
                pair=str(pair),
                bytes_per_token=expected.bytes_per_token,
                compression=expected.compression,
                largest_context=_largest_contexts(need, model, library),
                problem=_block_problem(pair, model, types),
            )
        )


def _examine_kernels(
    seen: _Examination,
    planned: list[Pair],
    model: Model,
    library: Library,
    settings: Settings,
    shell: Mapping[str, str],
) -> None:
    """Kernels of each pair on a device other than the CPU: whether a context of it decodes."""
    engine = measured_engine(settings, dict(shell), scrub(shell, settings.environment))
    possible = [pair for pair in planned if all(name in seen.types for name in pair)]
    trials = try_pairs(engine, model.path, library, possible, settings.gpu_layers)
    for text, wrong in lines(trials, library.device):
        seen.tell("kernels", text, wrong=wrong)


def _largest_contexts(need: geometry.Need, model: Model, library: Library) -> dict[str, int]:
    """Tokens per device; the CPU's weights are mapped from the file, a GPU's are copied."""
    room = {}
    for device in library.devices:
        if device.accelerator:  # no memory of its own: it computes on the CPU's
            continue
        free = FREE_SHARE * _free(device)
        room[device.name] = need.predicted_tokens(free - model.size)
    return room


def _free(device: Device) -> int:
    """Bytes free; the library calls all of the CPU's memory free, and a device that shares it
    counts what its own process has taken alone."""
    if not device.gpu:
        return memory.available()
    return min(device.free, memory.available()) if device.unified else device.free


def _block_problem(pair: Pair, model: Model, types: geometry.Types) -> str | None:
    """Blocks that do not divide a head: some builds refuse such a pair, some pad it."""
    for side, name, dim in (("K", pair.k, model.head_dim_k), ("V", pair.v, model.head_dim_v)):
        block = types[name]["block"]
        if dim % block:
            return (
                f"blocks of {block} ({side} {name}) do not divide heads of {dim}: this build "
                "refuses the pair or pads every head"
            )
    return None
