"""pytest-benchmark's tables stay off in a matrix run: they bury the matrix."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def silence_benchmark_tables(config: pytest.Config) -> None:
    """Switch the tables off, unless an option of pytest-benchmark was given.

    Called before pytest-benchmark reads its options. The samples are still taken, and saved or
    compared where that was asked for.
    """
    asked = asks_for_benchmark([*config.invocation_params.args, *config.getini("addopts")])
    if not asked and hasattr(config.option, "benchmark_quiet"):
        config.option.benchmark_quiet = True


def asks_for_benchmark(words: Iterable[str]) -> bool:
    """Whether an option of pytest-benchmark is among the words.

    >>> asks_for_benchmark(["--kv-matrix", "-q"]), asks_for_benchmark(["--benchmark-sort=name"])
    (False, True)
    """
    return any(str(word).startswith("--benchmark") for word in words)
