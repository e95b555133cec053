"""The worker's environment: cleaned of every toggle that changes results, then set on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TOGGLES = ("LLAMA_", "GGML_", "TURBO_")
"""Prefixes of variables that llama.cpp builds read; FIELD lists what each family changes."""

PATIENCE = {"OMP_WAIT_POLICY": "passive"}
"""Threads of the library sleep while they wait, unless the shell says otherwise: the parent
compares on the same cores while the worker decodes, and spinning threads make both up to ten times
slower on a busy machine. Logits do not depend on it. Timings do, for f16 and the cell alike: a
``[environment]`` that sets it wins, and so does the shell."""

BRIEF = {"GGML_NO_BACKTRACE": "1"}
"""An assertion ends with its own words. ggml would call a debugger, whose pages bury them."""


class Environment(NamedTuple):
    """What a worker starts with, and how it came about."""

    variables: dict[str, str]
    dropped: dict[str, str]
    """Toggles that stood in the shell and were left out."""
    added: dict[str, str]
    """What the configuration set, and the plugin for its own needs."""


def scrub(shell: Mapping[str, str], configured: Mapping[str, str]) -> Environment:
    """The shell's variables without the toggles, with those that are set on purpose."""
    dropped = {name: value for name, value in sorted(shell.items()) if name.startswith(TOGGLES)}
    kept = {name: value for name, value in shell.items() if name not in dropped}
    patience = {name: value for name, value in PATIENCE.items() if name not in kept}
    added = {**BRIEF, **patience, **configured}
    return Environment({**kept, **added}, dropped, added)
