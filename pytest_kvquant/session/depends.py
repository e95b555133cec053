"""What every figure of a run depends on besides its settings, by name: for the journal."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path

import msgspec
import psutil

import pytest_kvquant
from pytest_kvquant import __version__
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.inputs.corpus import Corpus
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.machine.environment import Environment
from pytest_kvquant.machine.hardware import cpu_name
from pytest_kvquant.machine.versions import driver_version, os_version
from pytest_kvquant.results.library import Library

OUTPUTS = (
    "json", "report", "summary", "live", "lines", "table", "evidence", "store", "store_limit",
    "baselines", "fresh", "devices", "timeout", "strict",
)  # fmt: skip
"""Settings that no measured figure depends on; a process of pytest-xdist has its own device."""


def command_of(settings: Settings) -> dict[str, object]:
    """The settings of a run without those that change no figure, as plain data."""
    given = msgspec.to_builtins(settings, enc_hook=str)
    return {name: value for name, value in given.items() if name not in OUTPUTS}


def depends(
    model: Model,
    corpus: Corpus,
    tokens_hash: str,
    library: Library,
    reference: Library,
    environment: Environment,
    *,
    settings: Settings,
    setup: Mapping[str, str],
) -> dict[str, str]:
    """Names as a person reads them, values as they compare.

    Args:
        setup: options of llama.cpp in words, files with their hashes.
    """
    gpu_layers = settings.gpu_layers
    gpu = bool(library.gpus_in_use(gpu_layers))
    return {
        "the model": model.fingerprint,
        "the corpus": f"{corpus.fingerprint} {tokens_hash}",
        "the build": library.hash,
        "the reference build": reference.hash,
        "the bindings": library.bindings,
        "the device": library.chip,
        "the machine": f"{cpu_name('?')} {platform.machine()} {psutil.virtual_memory().total}",
        "the system": f"{platform.system()} {platform.release()} {os_version()}",
        "the driver": driver_version(gpu=gpu),
        "Python": platform.python_version(),
        "pytest-kvquant": f"{__version__} {sources_hash()}",
        "the variables": repr(sorted(environment.added.items())),
        "the workers' hook": environment.hook,
        "the options of llama.cpp": repr(sorted(setup.items())),
        "the reference's logits": _state(settings.reference_logits),
        "the scenarios' files": repr([file_hash(Path(one)) for one in settings.scenarios]),
    }


@functools.cache
def sources_hash() -> str:
    """SHA-256 over this package's source files, 16 hex digits: a version can be many things."""
    package = Path(pytest_kvquant.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _state(path: Path | None) -> str:
    """Size and time of a file that is too large to be hashed each time; empty: there is none."""
    if path is None or not path.exists():
        return ""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def file_hash(path: Path | None) -> str:
    """SHA-256 of a small file, 16 hex digits; empty where there is none."""
    try:
        return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""
