"""Baselines as test outcomes, through syrupy: a normal run compares, ``--snapshot-update`` accepts.

Syrupy keeps its flow (recall, compare, write, report); the extension says where a cell's file lies,
compares within tolerance, writes it in one step, and owns nothing that could be deleted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.data import SnapshotCollection, SnapshotCollections
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from syrupy.location import PyTestLocation

from pytest_kvquant.baselines import file
from pytest_kvquant.baselines import quality as baselines
from pytest_kvquant.machine.files import replace
from pytest_kvquant.report.repeat import command as repeat_command
from pytest_kvquant.results.baseline import DRIFTED, MISSING, BaselineRecord

if TYPE_CHECKING:
    from pytest_kvquant.matrix import Pair
    from pytest_kvquant.session.run import Session

PLACE: pytest.StashKey[Path] = pytest.StashKey()
"""The file of a test's baseline."""


class BaselineExtension(SingleFileSnapshotExtension):
    """One file per cell, outside the folder of the tests."""

    _write_mode = WriteMode.TEXT
    file_extension = "json"

    def serialize(self, data: object, **_: object) -> str:
        """A baseline as the text of its file."""
        assert isinstance(data, file.Baseline)
        return file.encode(data)

    def matches(self, *, serialized_data: str | bytes, snapshot_data: str | bytes) -> bool:
        """Whether a cell has not drifted from its baseline."""
        found = baselines.judge(
            file.decode(str(snapshot_data), "the baseline"),
            file.decode(str(serialized_data), "the measured cell"),
        )
        return found is not None and found.verdict not in DRIFTED

    @classmethod
    def get_location(cls, *, test_location: PyTestLocation, **_: object) -> str:
        """The file that the test was given."""
        return str(test_location.item.stash[PLACE])

    @classmethod
    def matches_test_location(cls, **_: object) -> bool:
        """Every file was given by its test."""
        return True

    @classmethod
    def write_snapshot_collection(
        cls, *, snapshot_collection: SnapshotCollection, **_: object
    ) -> None:
        """Write a file so that whoever reads it sees the old one or the new one."""
        (snapshot,) = snapshot_collection
        replace(Path(snapshot_collection.location), str(snapshot.data).encode())

    def discover_snapshots(self, **_: object) -> SnapshotCollections:
        """Nothing: what is not discovered is not unused, and is not deleted.

        Cells of other machines, models and matrices lie beside those of this run; the report names
        what belongs to no cell.
        """
        return SnapshotCollections()

    def delete_snapshots(self, **_: object) -> None:
        """Never."""


class CellBaseline:
    """The baseline of one cell, as a test sees it.

    Args:
        snapshot: syrupy's fixture; ``None`` where syrupy is switched off.
        shell: the variables of the run; with ``CI`` set nothing is updated.
    """

    def __init__(
        self,
        session: Session,
        pair: Pair,
        snapshot: SnapshotAssertion | None,
        shell: Mapping[str, str] | None = None,
    ) -> None:
        self._session, self._pair = session, pair
        self._ci = in_ci(os.environ if shell is None else shell)
        self._snapshot = snapshot
        if snapshot is not None and self._ci:
            snapshot.update_snapshots = snapshot.update_new_snapshots_only = False

    @classmethod
    def of(cls, session: Session, pair: Pair, request: pytest.FixtureRequest) -> CellBaseline:
        """That of a test, through syrupy where it is not switched off."""
        snapshot = None
        if request.config.pluginmanager.hasplugin("syrupy") and session.baselines.on:
            request.node.stash[PLACE] = session.baselines.path(pair)
            snapshot = request.getfixturevalue("snapshot").use_extension(BaselineExtension)
        return cls(session, pair, snapshot)

    @property
    def record(self) -> BaselineRecord | None:
        """The cell beside its baseline; ``None`` where the run has no baselines."""
        return self._session.baseline(self._pair)

    def check(self) -> None:
        """Pass within tolerance of the baseline; accept the figures where that was asked for."""
        __tracebackhide__ = True
        record, session = self.record, self._session
        if record is None:
            pytest.skip("this run is compared with another build, not with baselines")
        if record.verdict == "damaged":
            pytest.fail(
                f"{self._pair}: {record.text} Restore it, or delete it and accept a new one with\n"
                f"  {self._command()}",
                pytrace=False,
            )
        if self._writes(record):
            self._accept(session)
        elif record.verdict == "better" and session.settings.ratchet:
            self._propose(record)
        elif record.verdict in MISSING:
            self._tell_missing(record)
        elif record.verdict in DRIFTED:
            apart = self._different_conditions(record)
            pytest.fail(
                f"{self._pair}: {record.text}\n{apart}  baseline  {record.path}\n"
                f"  accept    {self._command()}",
                pytrace=False,
            )
        elif self._snapshot is not None and self._snapshot != session.baselines.of(
            session.measure(self._pair)
        ):
            # The comparison is what syrupy counts; an assertion would be gone under python -O.
            pytest.fail(f"{self._pair}: {record.text} But {record.path} differs.", pytrace=False)

    def _writes(self, record: BaselineRecord) -> bool:
        """Whether what was found here is to be written, as syrupy was asked to."""
        if self._snapshot is None:
            return False
        if self._snapshot.update_snapshots:
            return record.verdict in (*MISSING, *DRIFTED)
        return self._snapshot.update_new_snapshots_only and record.verdict == "none"

    def _propose(self, record: BaselineRecord) -> None:
        """What got better passes, and is proposed; in CI too, where it is for others to take."""
        __tracebackhide__ = True
        session = self._session
        if wrong := session.verdicts.refusal(self._pair):
            pytest.fail(
                f"{self._pair} got better and is not proposed as a baseline: {wrong}.",
                pytrace=False,
            )
        try:
            session.baselines.propose(session.measure(self._pair), record)
        except OSError as error:
            pytest.fail(
                f"{self._pair}: the proposed baseline could not be written: {error.strerror}.",
                pytrace=False,
            )

    def _accept(self, session: Session) -> None:
        __tracebackhide__ = True
        assert self._snapshot is not None
        if wrong := session.verdicts.refusal(self._pair):
            pytest.fail(
                f"{self._pair} is not accepted as a baseline: {wrong}. Budgets hold while "
                "baselines are updated, too.",
                pytrace=False,
            )
        written = self._snapshot == session.baselines.of(session.measure(self._pair))
        done = self._snapshot.executions[self._snapshot.num_executions - 1]
        if not written:
            reason = done.exception
            said = reason.strerror if isinstance(reason, OSError) else str(reason)
            pytest.fail(
                f"{self._pair}: the baseline {done.snapshot_location} could not be written: "
                f"{said}.",
                pytrace=False,
            )
        session.baselines.accepted(self._pair)

    def _tell_missing(self, record: BaselineRecord) -> None:
        __tracebackhide__ = True
        where = " on a machine where CI is not set" if self._ci else ""
        needs = "" if self._snapshot is not None else " (it needs syrupy, which is switched off)"
        text = f"{self._pair}: {record.text}; accept one{where}{needs} with\n  {self._command()}"
        if self._session.settings.strict:
            pytest.fail(text, pytrace=False)
        pytest.skip(text)

    def _different_conditions(self, record: BaselineRecord) -> str:
        return f"  differs   {', '.join(record.differences)}\n" if record.differences else ""

    def _command(self) -> str:
        return repeat_command(self._session.account.invocation, self._pair, "--snapshot-update")


def in_ci(shell: Mapping[str, str]) -> bool:
    """Whether the variables are those of a CI runner."""
    return shell.get("CI", "").lower() not in ("", "0", "false")
