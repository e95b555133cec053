"""Options and fixtures; what happens with ``--kv-matrix`` stands in ``hooks.py``, imported then.

``pytest --kv-matrix`` collects the packaged suite; with paths, those.
"""

from __future__ import annotations

import os
import sys

import pytest

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


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the options: the first two always, the others where a word may name one."""
    group = parser.getgroup("kvquant", "quality and speed of quantized KV caches")
    group.addoption(
        "--kv-matrix", action="store_true", help="measure every K/V cache-type pair against f16"
    )
    group.addoption("--kv-config", metavar="PATH", help="configuration file (kvquant.toml)")
    if may_name_more(pluginmanager.get_plugin("pytestconfig")):
        from pytest_kvquant.hooks import declare_options

        declare_options(parser)


def may_name_more(config: pytest.Config | None) -> bool:
    """Whether a word of this run may be one of the further options, or ask for help.

    Every run of every project on the machine would pay for some sixty of them otherwise. What
    cannot be told counts as yes; so does what only looks like it, which costs a millisecond.
    """
    try:
        assert config is not None
        more = os.environ.get("PYTEST_ADDOPTS", "").replace("'", " ").replace('"', " ").split()
        words = [*map(str, config.invocation_params.args), *more, *config.getini("addopts")]
    except (AssertionError, ValueError):  # registered before pytest has read its configuration
        return True
    return bool(getattr(config.option, "kv_matrix", False)) or any(
        "--kv-" in word
        or word == "--help"
        or word[:1] == "@"
        or (word[:1] == "-" and word[:2] != "--" and "h" in word)
        for word in words
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
    from pytest_kvquant.session.benchmark_tables import leave_no_folder, silence_benchmark_tables
    from pytest_kvquant.session.stash import SUITE

    config.pluginmanager.register(MatrixHooks(), "kvquant-matrix")
    silence_benchmark_tables(config)
    leave_no_folder(config)
    pytest.register_assert_rewrite("pytest_kvquant.suite")
    from pytest_kvquant.session.watching import RunHooks

    config.pluginmanager.register(RunHooks(config), "kvquant-watching")
    if not any(map(config.pluginmanager.hasplugin, ("benchmark", "pytest_benchmark.plugin"))):
        config.pluginmanager.register(WithoutBenchmark(), "kvquant-without-benchmark")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = [str(SUITE)]
