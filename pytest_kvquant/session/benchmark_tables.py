"""pytest-benchmark in a matrix run: no tables, which bury the matrix, and no empty folder."""

from __future__ import annotations

import tempfile
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


def leave_no_folder(config: pytest.Config) -> None:
    """Keep pytest-benchmark from making its folder `.benchmarks` where nothing is saved in it.

    It makes the folder of its storage as soon as it starts, here or not; one that exists already
    is left as it is.
    """
    stored = ("benchmark_save", "benchmark_autosave", "benchmark_compare")
    if hasattr(config.option, "benchmark_storage") and not any(
        getattr(config.option, name, None) for name in stored
    ):
        config.option.benchmark_storage = f"file://{tempfile.gettempdir()}"


def asks_for_benchmark(words: Iterable[str]) -> bool:
    """Whether an option of pytest-benchmark is among the words.

    >>> asks_for_benchmark(["--kv-matrix", "-q"]), asks_for_benchmark(["--benchmark-sort=name"])
    (False, True)
    """
    return any(str(word).startswith("--benchmark") for word in words)
