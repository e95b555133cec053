"""The exception tree. Every message is a sentence: what happened, where, what to do."""

from __future__ import annotations

import signal
from typing import Literal

CellVerdict = Literal[
    "crashed",
    "timeout",
    "out-of-memory",
    "strained",
    "server-lost",
    "unsupported",
    "no-reference",
    "substituted",
]
"""Why a cell could not be measured honestly."""


class KVQuantError(Exception):
    """Base of everything this package raises on purpose."""


class RunRefused(KVQuantError):
    """Known before the first cell: the run ends with exit code 4 and this one message."""


class SettingsError(RunRefused):
    """An option, a configuration key or a value that cannot be meant."""


class ModelError(RunRefused):
    """The model file cannot be measured with."""


class CorpusError(RunRefused):
    """The corpus cannot be read or is too short."""


class ReferenceBroken(RunRefused):
    """f16 itself yields what is no number: nothing can be compared with it, and the run ends."""


class LibraryError(RunRefused):
    """The llama.cpp build or its Python bindings cannot be used."""


class ResultError(KVQuantError):
    """A result file that cannot be read, or results that do not belong together."""


class Stopped(KeyboardInterrupt):
    """A signal asked the run to end; what is there is written, then the process ends by it.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class CellError(KVQuantError):
    """A cell that could not be measured; ``verdict`` says why in a word."""

    verdict: CellVerdict = "crashed"

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log
        self.of: tuple[str, ...] = ()
        """Of several pairs in one process those that it came from, as far as that is known."""

    @property
    def last_line(self) -> str:
        """The last line of the log as a sentence that follows the message; empty without a log."""
        said = self.log.splitlines()
        return f" Its last line: {said[-1].strip()}" if said else ""


class CellCrashed(CellError):
    """The worker died: a signal, an abort, an exit."""


class CellSpoilt(CellError):
    """A kept worker no longer is what it was: nothing of its cell counts, and nothing of f16."""


class CellTimeout(CellError):
    """The worker was silent for longer than ``--kv-timeout``."""

    verdict: CellVerdict = "timeout"


class CellOutOfMemory(CellError):
    """The library could not allocate, or the system killed the worker."""

    verdict: CellVerdict = "out-of-memory"


class CellStrained(CellError):
    """The machine began to suffer, and the worker was stopped before it suffered more."""

    verdict: CellVerdict = "strained"


class CellServerLost(CellError):
    """An RPC server that holds a part of the model, or of the cache, is gone."""

    verdict: CellVerdict = "server-lost"


class CellUnsupported(CellError):
    """The library refuses this pair on this model."""

    verdict: CellVerdict = "unsupported"


class CellWithoutReference(CellError):
    """The f16 logits that the cell is compared with cannot be stored or read."""

    verdict: CellVerdict = "no-reference"


class CellSubstituted(CellError):
    """The cache holds other types than were asked for."""

    verdict: CellVerdict = "substituted"


NOT_WINDOWS = (
    "pytest-kvquant runs on Linux and macOS, not on Windows itself; in WSL it does, as on Linux."
)
