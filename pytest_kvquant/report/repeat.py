"""The command that measures one cell again, as failures and pages print it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pytest_kvquant.matrix import Pair


def command(invocation: Iterable[str], pair: Pair | str, *more: str) -> str:
    """A line for the shell.

    Args:
        invocation: options of the run, as typed.
        more: words at its end.

    >>> command(["--kv-ctx", "64"], "q8_0/q4_0", "-k", "speed")
    'pytest --kv-matrix --kv-ctx 64 --kv-pairs q8_0/q4_0 -k speed'
    """
    return shlex.join(["pytest", "--kv-matrix", *invocation, "--kv-pairs", str(pair), *more])
