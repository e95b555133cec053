"""How a worker ended, as a verdict with its cause: refusals, failed decodes, deaths."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable

from pytest_kvquant.engine.device_errors import Complaint, complaint
from pytest_kvquant.engine.servers import answers
from pytest_kvquant.errors import (
    CellCrashed,
    CellError,
    CellOutOfMemory,
    CellServerLost,
    CellUnsupported,
)

LINES = 12
"""Lines of the library's log that a verdict quotes."""

DEATH_LINES = 64
"""Lines before a death that may name its cause: earlier ones were survived."""

_CHATTER = re.compile(
    r"create_tensor:|llama_graph_n_input_tensors|CUDA graph|compiling pipeline:|: loaded kernel_",
    re.IGNORECASE,
)
"""Debug lines of llama.cpp and its backends that would fill what a verdict quotes."""

_COMPLAINT = re.compile(r"error|fail|not support|does not divide|requires|assert", re.IGNORECASE)

_KINDS: dict[str, type[CellError]] = {
    "compiler": CellUnsupported,
    "operation": CellUnsupported,
    "kernel": CellUnsupported,
    "memory": CellOutOfMemory,
    "failed": CellCrashed,
    "server": CellServerLost,
}
"""What each kind of complaint makes of a cell."""


NO_REASON = "its log gives no reason"
"""Where the library refuses and does not say why."""


def quoted(log: str, lines: int = LINES) -> str:
    """The end of a log without chatter, led by the line that names the cause if that is earlier."""
    told = [line for line in log.splitlines() if not _CHATTER.search(line)]
    end = told[-lines:]
    found = complaint(log)
    if found is not None and not any(found.line in line for line in end):
        end = [found.line, "…", *end[2:]]
    return "\n".join(end)


def refused(message: str, log: str, *, kind: str) -> CellError:
    """What the library's refusal makes of a cell.

    Args:
        message: what was asked for and not done.
        kind: class of the child's exception.
    """
    brief = quoted(log)
    if kind == "LostServer":
        return CellServerLost(message, log=brief)
    if kind == "BadLibrary":  # says everything itself
        return CellUnsupported(message, log=brief)
    if (found := complaint(log)) is not None:
        return _by(found, f"{message}: {found.text}.", brief)
    complaints = [line for line in log.splitlines() if _COMPLAINT.search(line)]
    reason = complaints[-1].strip() if complaints else NO_REASON
    if kind in ("DecodeFailed", "DeviceFailed"):
        return CellCrashed(f"{message}; the log's last complaint: {reason}.", log=brief)
    return CellUnsupported(f"{message}: {reason}.", log=brief)


def died(code: int, log: str) -> CellError:
    """What a worker's death makes of a cell.

    Args:
        code: of :attr:`subprocess.Popen.returncode`.
    """
    brief, words = quoted(log), death_in_words(code)
    found = complaint("\n".join(log.splitlines()[-DEATH_LINES:]))
    if found is None:
        return CellCrashed(f"{_abort(log)}{words}", log=brief)
    if found.kind == "memory":
        return CellOutOfMemory(f"{words} It was out of memory.", log=brief)
    return _by(found, f"{found.text[0].upper()}{found.text[1:]}. {words}", brief)


_ABORT = re.compile(r"(?:.*[/\\])?([\w.+-]+\.\w+:\d+: .+)")
"""Source, line and words: how ggml says why it aborts."""


def _abort(log: str) -> str:
    """A library's last words before it aborted, as the start of a sentence; empty: none."""
    told = [_ABORT.fullmatch(line.strip()) for line in log.splitlines()[-DEATH_LINES:]]
    lines = [found[1] for found in told if found is not None]
    return f"It stopped at {lines[-1].rstrip('.')}. " if lines else ""


def with_servers(lost: CellServerLost, servers: Iterable[str]) -> CellServerLost:
    """The verdict with the servers that cannot be reached now, where there are any."""
    gone = [server for server in servers if not answers(server)]
    if not gone:
        return lost
    plural = "s" if len(gone) > 1 else ""
    return CellServerLost(f"RPC server{plural} {', '.join(gone)} lost. {lost}", log=lost.log)


def _by(found: Complaint, message: str, log: str) -> CellError:
    return _KINDS[found.kind](message, log=log)


_MEANINGS = {
    "SIGSEGV": "invalid memory access",
    "SIGABRT": "an assertion or abort",
    "SIGBUS": "bad memory access",
    "SIGILL": "an instruction that this CPU does not have",
    "SIGFPE": "an arithmetic fault",
    "SIGTRAP": "a check of the system's own libraries, as those of Metal's debug layer",
    "SIGKILL": "from outside; often the system's out-of-memory killer, on macOS also jetsam or an "
    "invalid code signature",
    "SIGXCPU": "a limit on CPU time",
}


def death_in_words(code: int) -> str:
    """A process's return code as a sentence.

    >>> death_in_words(3), death_in_words(-5)[:34]
    ('The worker exited with code 3.', 'The worker was killed by SIGTRAP (')
    """
    if code >= 0:
        return f"The worker exited with code {code}."
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"The worker was killed by signal {-code}."
    meaning = _MEANINGS.get(name)
    return f"The worker was killed by {name}" + (f" ({meaning})." if meaning else ".")
