"""What a device's backend complains of, and what that makes of a cell.

One table of lines that llama.cpp and its backends print, most telling first. Standard library
only: parent and child both read it. Found in the sources of ggml-metal (upstream and a fork, 2026)
and in logs that users posted; ``tests/unit/test_device_errors.py`` has these.

Since llama.cpp's pull request 20306 a Metal command buffer that fails is told in the log alone:
``llama_decode`` has returned 0, and only the next one gives -3.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["compiler", "operation", "kernel", "memory", "failed", "server"]


class Complaint(NamedTuple):
    """One complaint of a device."""

    kind: Kind
    """``compiler``: its kernels do not compile; ``operation``, ``kernel``: one is missing;
    ``memory``: too little of it; ``server``: an RPC server is gone; ``failed``: it stopped for
    another reason."""
    line: str
    """The line that says so, as it stands in the log."""
    text: str
    """For people: a clause."""


class _Rule(NamedTuple):
    kind: Kind
    pattern: re.Pattern[str]
    """``quoted``: the part to quote, else the whole line."""
    text: str
    """With ``{quoted}`` and the pattern's other groups."""


def _rule(kind: Kind, pattern: str, text: str) -> _Rule:
    return _Rule(kind, re.compile(pattern), text)


_FAILED_BUFFER = r"command buffer \d+ failed with status \d+\n"
_TABLE = (
    _rule(
        "server",
        r"(?P<quoted>Remote RPC server crashed or returned malformed response)",
        "the library lost an RPC server: {quoted}",
    ),
    _rule(
        "server",
        r"(?P<quoted>[Ff]ailed to connect to (?:RPC server )?\S+:\d+)",
        "the library lost an RPC server: {quoted}",
    ),
    _rule(
        "compiler",
        r"(?P<quoted>program_source:\d+:\d+: error: .+)",
        "the device's kernels do not compile: {quoted}",
    ),
    _rule(
        "compiler",
        r"ggml_metal_\w+: (?:error|failed to build '\w+' library): (?P<quoted>Error Domain=.+)",
        "the device's library of kernels is not made: {quoted}",
    ),
    _rule(
        "compiler",
        r"(?P<quoted>.*(?:failed to initialize the Metal library|failed to create library))",
        "the device's library of kernels is not made: {quoted}",
    ),
    _rule(
        "operation",
        r"pre-allocated tensor \((?P<tensor>[^()]+)(?: \(\w+\))*\) in a buffer "
        r"\((?P<device>\w+)\) that cannot run the operation \((?P<operation>\w+)\)",
        "{device} has no {operation} for the type of {tensor}",
    ),
    _rule(
        "operation",
        r"error: unsupported op '(?P<operation>[^']+)'",
        "the device has no {operation} for these types",
    ),
    _rule(
        "kernel",
        r"(?:kernel not found in any metal library|failed to compile pipeline"
        r"|failed to create pipeline state): base = '(?P<kernel>\w+)'",
        "the device has no kernel {kernel}",
    ),
    _rule(
        "memory",
        _FAILED_BUFFER + r"error: (?P<quoted>Insufficient Memory.*)",
        "the device ran out of memory while it computed: {quoted}",
    ),
    _rule(
        "memory",
        r"(?P<quoted>ggml_metal\w*: (?:error: )?failed to allocate (?:Metal )?buffer.*)",
        "the device gave no more memory: {quoted}",
    ),
    _rule(
        "failed",
        _FAILED_BUFFER + r"error: (?P<quoted>.+)",
        "the device stopped while it computed: {quoted}",
    ),
    _rule(
        "failed",
        r"(?P<quoted>.*command buffer \d+ failed with status \d+.*)",
        "the device stopped while it computed: {quoted}",
    ),
    _rule(
        "failed",
        r"(?P<quoted>.*backend is in error state from a previous command buffer failure.*)",
        "the device had stopped before: {quoted}",
    ),
    _rule(
        "memory",
        r"(?i)(?P<quoted>.*(?:failed to allocate(?! context)|out of memory|unable to allocate"
        r"|cannot allocate|insufficient memory).*)",
        "out of memory: {quoted}",
    ),
)

_SIGNS = re.compile(
    r"command buffer \d+ failed with status|backend is in error state|failed to compile pipeline"
    r"|kernel not found in any metal library"
)
"""Words of the device that make what was computed since worthless, though the call succeeded."""


def complaint(log: str) -> Complaint | None:
    """The most telling complaint of a log; of several of one sort the first, which caused them.

    >>> complaint(
    ...     "ggml_metal_synchronize: error: command buffer 0 failed with status 5\\n"
    ...     "error: Caused GPU Timeout Error (00000002:kIOAccelCommandBufferCallbackErrorTimeout)"
    ... ).kind
    'failed'
    """
    for rule in _TABLE:
        if found := rule.pattern.search(log):
            groups = {name: (word or "").strip() for name, word in found.groupdict().items()}
            whole = log[log.rfind("\n", 0, found.end()) + 1 :].split("\n", 1)[0].strip()
            return Complaint(rule.kind, groups.get("quoted") or whole, rule.text.format(**groups))
    return None


def spoils(log: str) -> bool:
    """Whether a piece of the log says that the device computed nothing, whatever was returned."""
    return _SIGNS.search(log) is not None
