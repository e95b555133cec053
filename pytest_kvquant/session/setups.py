"""The set-up of a run: options of llama.cpp as workers take them, and as the record and the key of
a reference name them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.config.setup import FILES, Setup, as_words
from pytest_kvquant.engine.options import words
from pytest_kvquant.engine.scaled_file import with_scale
from pytest_kvquant.errors import ModelError
from pytest_kvquant.inputs.control_vector import write_array
from pytest_kvquant.machine.files import cache_folder


def for_workers(settings: Settings) -> Setup:
    """The set-up with control vectors as the arrays that workers read.

    Raises:
        ModelError: an adapter or a control vector is not there, or is none.
    """
    setup = dict(settings.setup)
    for name in FILES:
        for word in words(setup, name):
            if not Path(with_scale(word)[0]).is_file():
                raise ModelError(f"{name} {with_scale(word)[0]}: there is no such file.")
    if "control-vector" in setup:
        setup["control-vector"] = [_as_array(word) for word in words(setup, "control-vector")]
    return setup


def in_words(settings: Settings) -> dict[str, str]:
    """The set-up for people, records and keys; files with the hash of what they hold."""
    setup = dict(settings.setup)
    for name in FILES:
        if name in setup:
            files = words(setup, name)
            setup[name] = [f"{word} ({_hash(Path(with_scale(word)[0]))})" for word in files]
    return as_words(setup)


def _as_array(word: str) -> str:
    path, scale = with_scale(word)
    folder = cache_folder() / "control-vectors"
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{_hash(Path(path))}.npy"
    if not out.exists():
        write_array(Path(path), out)
    return f"{out}:{scale}"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
