"""Meeting a library and its view of the model: what cannot be used is refused here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.messages.model import ModelLoaded
from pytest_kvquant.engine.parent.devices import in_use, split_over
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import (
    CellError,
    CellUnsupported,
    LibraryError,
    ModelError,
    SettingsError,
)
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.machine.devices import parse
from pytest_kvquant.machine.escape import throughout
from pytest_kvquant.machine.visible import ALL
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.library import Library


def identify(worker: Worker, engine: Engine) -> Library:
    """What a library is, and can do.

    Raises:
        LibraryError: it cannot be loaded.
    """
    try:
        identity = worker.library(engine.directory, full=True)
    except CellUnsupported as error:  # says everything itself
        raise LibraryError(str(error)) from None
    except CellError as error:
        missing = re.search(r"No module named '(\w+)'", error.last_line)
        raise LibraryError(
            f"{engine.python} lacks {missing[1]}: a worker needs NumPy and llama-cpp-python there "
            f"(pip install numpy llama-cpp-python), or name another interpreter with --kv-python."
            if missing
            else f"{error} It was started by {engine.python}.{error.last_line}"
        ) from None
    return msgspec.convert(throughout(identity), Library)


def used(library: Library, engine: Engine, words: Sequence[str], gpu_layers: int) -> Library:
    """The library with the devices that this process uses, as :func:`in_use` and
    :func:`split_over` find them.

    Raises:
        SettingsError: one is not there; the message names all that this machine has.
    """
    try:
        return split_over(in_use(library, words, gpu_layers), engine.setup)
    except SettingsError:
        if not engine.visible.variables:
            raise
        seeing = msgspec.structs.replace(engine, visible=ALL)
        with Worker(seeing) as worker:
            in_use(identify(worker, seeing), words, gpu_layers)
        raise


def load(worker: Worker, model: Model, gpu_layers: int, *, only: bool = False) -> ModelLoaded:
    """What the worker says of the model that it has loaded.

    Args:
        only: its vocabulary alone, without weights.

    Raises:
        ModelError: it cannot be loaded.
    """
    try:
        return worker.model(model.path, gpu_layers=gpu_layers, vocabulary_only=only)
    except CellError as error:
        raise ModelError(f"{error}{error.last_line}") from None


def require_kernels(worker: Worker, library: Library) -> None:
    """A GPU that computes no f16 has nothing that a cell could be compared with.

    Raises:
        LibraryError: it does not.
    """
    try:
        worker.operations(REFERENCE, threads=1)
    except CellError as error:
        raise LibraryError(f"{library.device} decodes no {REFERENCE}. {error}") from None


def require_types(pairs: Iterable[Pair], library: Library) -> None:
    """See that a library has the cache types of all pairs.

    Raises:
        SettingsError: it lacks one.
    """
    possible = [name for name, kind in library.types.items() if kind.cache]
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        if name in possible:
            continue
        reason = "cannot hold a KV cache" if name in library.types else "is not a type"
        raise SettingsError(
            f"The cache type '{name}' {reason} of this library ({library.build}). "
            f"It has: {', '.join(possible)}."
        )


def shares_device(settings: Settings, library: Library) -> bool:
    """Whether the weights of the reference's build go to a GPU that has those of the measured one.

    Args:
        library: the measured build, with the devices that it uses.
    """
    own = {one.name for one in library.gpus_in_use(settings.gpu_layers)}
    words = settings.reference_devices
    return bool(own) and (not words or parse(words[0]).name in own)


def meet_reference(
    engine: Engine,
    settings: Settings,
    model: Model,
    pairs: Iterable[Pair],
    *,
    vocabulary_only: bool = False,
) -> tuple[Library, int]:
    """The library that the reference comes from, and the size of the vocabulary that it reads.

    Args:
        vocabulary_only: no weights are read.

    Raises:
        LibraryError: it cannot be loaded, or not the model.
        SettingsError: it lacks a cache type.
    """
    with Worker(engine) as worker:
        try:
            words = settings.reference_devices or settings.devices
            library = used(identify(worker, engine), engine, words, settings.gpu_layers)
            loaded = load(worker, model, settings.gpu_layers, only=vocabulary_only)
            vocabulary = loaded.vocabulary
        except (LibraryError, ModelError) as error:
            flag = "lib" if settings.reference_lib is not None else "devices"
            raise LibraryError(f"--kv-reference-{flag}: {error}") from None
    require_types(pairs if settings.compare_cells else [REFERENCE], library)
    return library, vocabulary


def require_comparable(
    reference: Library, its_vocabulary: int, measured: Library, vocabulary: int, model: str
) -> None:
    """See that the logits of two builds can be compared.

    Raises:
        LibraryError: they read the model in two ways.
    """
    if its_vocabulary != vocabulary:
        raise LibraryError(
            f"--kv-reference-lib {reference.path} reads {its_vocabulary} tokens from the "
            f"vocabulary of {model}, {measured.path} reads {vocabulary}: their logits cannot "
            "be compared."
        )
