"""Options and fixtures; what happens with ``--kv-matrix`` stands in ``hooks.py``, imported then.

``pytest --kv-matrix`` collects the packaged suite; with paths, those.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_kvquant.config.options import FLAG, GROUPS, OPTIONS, group_of
from pytest_kvquant.fixtures import (
    WithoutBenchmark,
    kv_baseline,
    kv_cell,
    kv_depth,
    kv_matrix,
    kv_memory,
    kv_quality,
    kv_speed,
    kv_zoo,
)

__all__ = ["kv_baseline", "kv_cell", "kv_depth", "kv_matrix", "kv_memory", "kv_quality", "kv_speed",
           "kv_zoo"]  # fmt: skip

SUITE = Path(__file__).parent / "suite"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options; every default is ``None``, the resolver knows the real ones."""
    group = parser.getgroup("kvquant", "quality and speed of quantized KV caches")
    group.addoption(
        "--kv-matrix", action="store_true", help="measure every K/V cache-type pair against f16"
    )
    group.addoption("--kv-config", metavar="PATH", help="configuration file (kvquant.toml)")
    groups = {one: parser.getgroup(f"kvquant, {one}", f"KV caches: {one}") for one in GROUPS}
    for option in OPTIONS:
        group = groups[group_of(option)]
        if option.kind == FLAG:
            group.addoption(option.flag, dest=option.dest, action="store_const", const="on",
                            help=option.help)  # fmt: skip
        else:
            group.addoption(
                option.flag,
                dest=option.dest,
                metavar=option.takes,
                choices=option.choices or None,
                help=option.help,
            )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """With ``--kv-matrix``: collect the packaged suite unless paths were given."""
    config.addinivalue_line(
        "markers",
        "kv(pairs=None, budgets=None): run this test for the cells that match a pattern of pairs "
        "(as 'q8_0/*'), with these budgets instead of the run's (as {'kl_mean': 0.002})",
    )
    if not config.getoption("kv_matrix"):
        return
    if sys.platform == "win32":
        from pytest_kvquant.errors import NOT_WINDOWS

        raise pytest.UsageError(NOT_WINDOWS)
    from pytest_kvquant.hooks import MatrixHooks
    from pytest_kvquant.session.benchmark_tables import silence_benchmark_tables

    config.pluginmanager.register(MatrixHooks(), "kvquant-matrix")
    silence_benchmark_tables(config)
    pytest.register_assert_rewrite("pytest_kvquant.suite")
    from pytest_kvquant.session.watching import RunHooks

    config.pluginmanager.register(RunHooks(config), "kvquant-watching")
    if not config.pluginmanager.hasplugin("benchmark"):
        config.pluginmanager.register(WithoutBenchmark(), "kvquant-without-benchmark")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = [str(SUITE)]
