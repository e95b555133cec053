"""What pytest asks of the plugin on the way of a run with ``--kv-matrix``."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from pytest_kvquant.config.options import FLAG, GROUPS, OPTIONS, group_of
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.session.stash import DISTRIBUTION, SESSION, SUITE

LINES_ONLY: pytest.StashKey[bool] = pytest.StashKey()
"""Whether a line of each pair takes the place of the dots of its tests."""


def declare_options(parser: pytest.Parser) -> None:
    """Every option with a TOML twin; each default is ``None``, the resolver knows the real ones."""
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


class MatrixHooks:
    """What happens on the way of a run; without ``--kv-matrix`` pytest does not even know of it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """With ``-n``: what cannot work ends the run before a process is started."""
        config = session.config
        elsewhere = config.getoption("tx", None) and not hasattr(config, "workerinput")
        if elsewhere and not config.getoption("numprocesses", None):
            raise pytest.UsageError(
                "--kv-matrix does not run over --tx: on one machine -n N --kv-devices D1,D2 gives "
                "each process a device; several machines take a --kv-shard I/N each, and kvquant "
                "merge makes one result of theirs."
            )
        if config.getoption("numprocesses", None):
            from pytest_kvquant.session.start import prepare_distribution
            from pytest_kvquant.xdist import XdistHooks

            config.stash[DISTRIBUTION] = run = prepare_distribution(config)
            config.pluginmanager.register(XdistHooks(run), "kvquant-xdist")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Prepare the run before the first test is collected; what cannot work ends it here."""
        config = session.config
        if DISTRIBUTION not in config.stash:
            from pytest_kvquant.session.start import prepare

            config.stash[SESSION] = prepare(config)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test that asks for a cell once for every cell."""
        run = metafunc.config.stash.get(SESSION, None)
        if run is not None and "kv_cell" in metafunc.fixturenames:
            pairs = _select(metafunc.definition, run.pairs)
            metafunc.parametrize("kv_cell", pairs, ids=str, indirect=True)
        if run is not None and "kv_zoo" in metafunc.fixturenames:
            metafunc.parametrize("kv_zoo", run.zoo.plan, ids=str, indirect=True)
        if run is not None and "kv_depth" in metafunc.fixturenames:
            depths = run.speed.plan.depths
            metafunc.parametrize("kv_depth", depths, ids=[f"d{n}" for n in depths], indirect=True)

    def pytest_ignore_collect(self, collection_path: Path, config: pytest.Config) -> bool | None:
        """Leave those of the packaged tests out that are switched off."""
        run = config.stash.get(SESSION, None)
        if run is None:
            return None
        off = {SUITE / "test_speed.py": not run.speed.on,
               SUITE / "test_ceiling.py": not run.speed.ceiling_on,
               SUITE / "test_zoo.py": not run.zoo.plan}  # fmt: skip
        return off.get(collection_path) or None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Cell by cell, so that each is judged once it is measured; what it is comes first.

        Tests without a cell keep their place before the cells, or come after them if they ask for
        the whole run.
        """
        if (run := config.stash.get(SESSION, None)) is not None:
            from pytest_kvquant.session.order import cell_by_cell

            items[:] = cell_by_cell(
                items, run.pairs, first=SUITE / "test_identity.py", last=SUITE / "test_baseline.py"
            )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell the run which tests were selected, and which cells they ask for."""
        run = session.config.stash.get(SESSION, None)
        if run is not None:
            from pytest_kvquant.session.order import tell_what_is_asked
            from pytest_kvquant.session.start import begin

            tell_what_is_asked(session.items, run)
            begin(run, session.config, session.items)
            # With a default: without its terminal plugin pytest has no such option, and
            # get_verbosity of pytest 8.2 ends in an AttributeError.
            option = session.config.getoption
            calm = option("verbose", 0) == 0 and not option("collectonly")
            if calm and all(SUITE in item.path.parents for item in session.items):
                session.config.stash[LINES_ONLY] = True
                reporter = session.config.pluginmanager.getplugin("terminalreporter")
                if reporter is not None:
                    reporter.showfspath = False
                    reporter._show_progress_info = False  # else "[100%]", alone on a line

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport | pytest.CollectReport, config: pytest.Config
    ) -> tuple[str, str, str] | None:
        """No dots for what passes or skips in the packaged suite: a line of each pair says it."""
        if LINES_ONLY not in config.stash or not isinstance(report, pytest.TestReport):
            return None
        if report.failed or hasattr(report, "wasxfail") or report.when == "teardown":
            return None
        if report.when == "setup" and not report.skipped:
            return None
        return report.outcome, "", report.outcome.upper()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self,
        item: pytest.Item,
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Remember which cells failed."""
        report = yield
        run = item.config.stash.get(SESSION, None)
        if run is not None and report.failed:
            from pytest_kvquant.session.order import cell_of

            if (pair := cell_of(item)) is not None:
                run.account.failed.add(pair)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, bool, bool]:
        """After the last test of a cell say how it went; --kv-fail-fast ends a run that failed."""
        done = yield
        run = item.config.stash.get(SESSION, None)
        if run is not None:
            from pytest_kvquant.session.order import after

            after(item, nextitem, run)
        return done

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Write what was asked for, also after an interruption; below pytest's own, the matrix."""
        config = session.config
        run = config.stash.get(DISTRIBUTION, config.stash.get(SESSION, None))
        watching = config.pluginmanager.getplugin("kvquant-watching")
        stopped = watching.stopped if watching is not None else None
        if run is None:
            yield
            if stopped is not None:
                session.exitstatus = 128 + stopped
            return
        from pytest_kvquant.session.start import finish, show

        code = finish(session, run, stopped)
        try:
            yield
        finally:
            if code is not None:
                session.exitstatus = code
            show(session, run)

    def pytest_report_header(self) -> str:
        """Name the plugin's version where it is at work."""
        from pytest_kvquant import __version__

        return f"kvquant: pytest-kvquant {__version__}"


def _select(test: pytest.Item, pairs: Sequence[Pair]) -> list[Pair]:
    """The cells that a test is collected for; a marker that cannot be meant is its failure."""
    from pytest_kvquant.outcomes.mark import read_mark

    __tracebackhide__ = True
    try:
        return read_mark(test).select(pairs)
    except SettingsError as error:
        pytest.fail(f"{test.nodeid}: {error}", pytrace=False)
