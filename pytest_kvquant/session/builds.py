"""The builds of a run: the one that is measured, and the one that it is compared with."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.machine.devices import parse
from pytest_kvquant.machine.environment import BINDINGS, Environment
from pytest_kvquant.machine.visible import only
from pytest_kvquant.session.setups import for_workers


def library_directory(settings: Settings, shell: Mapping[str, str]) -> str | None:
    """``--kv-lib``, else where ``LLAMA_CPP_LIB_PATH`` points the bindings, else their own.

    Absolute: the loader of a hardened Python refuses others.
    """
    if settings.lib is not None:
        return str(settings.lib.absolute())
    pointed = shell.get(BINDINGS)
    return str(Path(pointed).absolute()) if pointed else None


def device(settings: Settings) -> str | None:
    """The one device of this process, in ggml's words; ``None``: what llama.cpp chooses."""
    return parse(settings.devices[0]).name if settings.devices else None


def reference_device(settings: Settings) -> str | None:
    """The device that computes the reference: ``--kv-reference-devices``, else the same one."""
    words = settings.reference_devices or settings.devices
    return parse(words[0]).name if words else None


def measured_engine(
    settings: Settings, shell: Mapping[str, str], environment: Environment
) -> Engine:
    """How workers of the measured build are started.

    Raises:
        SettingsError: there is no such interpreter.
    """
    return Engine(
        python=_interpreter("--kv-python", settings.python),
        directory=library_directory(settings, shell),
        device=device(settings),
        visible=only(settings.devices, environment.variables),
        setup=for_workers(settings),
        environment=environment,
        timeout=settings.timeout,
    )


def reference_engine(settings: Settings, environment: Environment) -> Engine | None:
    """How workers of the reference build are started; ``None`` where there is no other build.

    Its interpreter is ``--kv-reference-python``, else ``--kv-python``: two commits of one fork
    take the same bindings.

    Raises:
        SettingsError: there is no such interpreter, or options of another build without one.
    """
    if settings.reference_lib is None and settings.reference_devices:
        variables = {**environment.dropped, **environment.variables}
        return msgspec.structs.replace(
            measured_engine(settings, variables, environment),
            device=reference_device(settings),
            visible=only(settings.reference_devices, environment.variables),
        )
    if settings.reference_lib is None:
        for flag in ("reference_python", "compare_cells"):
            if getattr(settings, flag):
                name = flag.replace("_", "-")
                raise SettingsError(f"--kv-{name} needs another build: --kv-reference-lib DIR.")
        return None
    return Engine(
        python=_interpreter("--kv-reference-python", settings.reference_python or settings.python),
        directory=str(settings.reference_lib.absolute()),
        device=reference_device(settings),
        visible=only(settings.reference_devices or settings.devices, environment.variables),
        setup=for_workers(settings),
        environment=environment,
        timeout=settings.timeout,
    )


def _interpreter(flag: str, path: Path | None) -> str:
    # Never resolved: the link in a virtual environment is what makes it one.
    if path is None:
        return sys.executable
    if shutil.which(path) is not None:
        return str(path)
    if path.is_file() and os.access(path, os.X_OK):  # a bare name of a file that lies here
        return str(path.absolute())
    raise SettingsError(f"{flag} {path}: there is no such program.")
