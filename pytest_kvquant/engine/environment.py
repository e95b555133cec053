"""The worker's environment: cleaned of every toggle that changes results, then set on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TOGGLES = ("LLAMA_", "GGML_", "TURBO_")
"""Prefixes of variables that llama.cpp builds read; FIELD lists what each family changes."""


class Environment(NamedTuple):
    """What a worker starts with, and how it came about."""

    variables: dict[str, str]
    dropped: dict[str, str]
    """Toggles that stood in the shell and were left out."""
    added: dict[str, str]
    """Toggles that the configuration set."""


def scrub(shell: Mapping[str, str], configured: Mapping[str, str]) -> Environment:
    """The shell's variables without the toggles, with those that the configuration sets."""
    dropped = {name: value for name, value in sorted(shell.items()) if name.startswith(TOGGLES)}
    kept = {name: value for name, value in shell.items() if name not in dropped}
    return Environment({**kept, **configured}, dropped, dict(configured))
