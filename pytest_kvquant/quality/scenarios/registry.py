"""The decorator that makes a function a scenario, and the list of all of them."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_kvquant.errors import SettingsError
from pytest_kvquant.quality.scenarios.tape import Tape


class KnownFault(NamedTuple):
    """What of llama.cpp itself is wrong in a scenario, and how that shows: nothing else is excused
    by it."""

    why: str
    """In a sentence."""
    operation: str
    """All wrong nodes are of it, as of :class:`pytest_kvquant.results.kernels.CornerRecord`."""
    pattern: str
    """A regular expression, which the text of each of them holds."""


class Scenario(NamedTuple):
    """What is done to one context."""

    name: str
    title: str
    record: Callable[[Tape], None]
    sequences: int = 1
    cells: int | Callable[[int], int] = 256
    """Per sequence; or what makes it of the model's window."""
    unified: bool = False
    level: str = "standard"
    """``standard`` or ``full``: the least coverage with which it is played."""
    known: KnownFault | None = None
    file: str = ""
    """The file of a user that it comes from; empty: it is one of the package."""

    def size(self, window: int) -> int:
        """Cells per sequence on a model with this window."""
        return self.cells if isinstance(self.cells, int) else self.cells(window)


_KNOWN: dict[str, Scenario] = {}


def scenario(
    title: str,
    *,
    sequences: int = 1,
    cells: int | Callable[[int], int] = 256,
    unified: bool = False,
    level: str = "standard",
    known: KnownFault | None = None,
) -> Callable[[Callable[[Tape], None]], Callable[[Tape], None]]:
    """Make a function that records steps a scenario, under the function's name.

    Args:
        title: one line for people.
        sequences: how many the context can hold.
        cells: tokens per sequence; or what gives them, told the tokens of the model's sliding
            window (0: none).
        unified: whether sequences share their cells (``kv_unified``).
        level: ``standard`` or ``full``.
        known: what of llama.cpp itself is known to be wrong there: a failure that shows in this
            way alone is told, and is none of the build.
    """

    def declare(record: Callable[[Tape], None]) -> Callable[[Tape], None]:
        name = record.__name__
        own = record.__module__.startswith("pytest_kvquant.")
        file = "" if own else record.__code__.co_filename
        _KNOWN[name] = Scenario(name, title, record, sequences, cells, unified, level, known, file)
        return record

    return declare


def all_scenarios(files: Sequence[Path] = ()) -> list[Scenario]:
    """Those of this folder and of further files, in the order of their names.

    Raises:
        SettingsError: a file cannot be run, or has no scenario.
    """
    package = importlib.import_module("pytest_kvquant.quality.scenarios")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for number, path in enumerate(files):
        _run_file(path, number)
    return [_KNOWN[name] for name in sorted(_KNOWN)]


def _run_file(path: Path, number: int) -> None:
    before = dict(_KNOWN)
    spec = importlib.util.spec_from_file_location(f"kvquant_scenarios_{number}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SettingsError(f"--kv-scenarios {path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SettingsError(f"--kv-scenarios {path} cannot be run: {error!r}.") from error
    if all(before.get(name) is one for name, one in _KNOWN.items()):
        raise SettingsError(
            f"--kv-scenarios {path} has no scenario; decorate a function with "
            "pytest_kvquant.quality.scenarios.registry.scenario."
        )
