"""Memory as test outcomes: bytes per token, and the context that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from pytest_kvquant.report.repeat import command as repeat_command

if TYPE_CHECKING:
    from pytest_kvquant.matrix import Pair
    from pytest_kvquant.session.run import Session


class CellMemory:
    """The memory of one cell, as a test sees it."""

    def __init__(self, session: Session, pair: Pair, node: pytest.Item) -> None:
        self._session, self._pair, self._node = session, pair, node

    def check_footprint(self) -> None:
        """Fail where a token takes more bytes than its floor on the compression allows.

        Without a configured floor that is what the model's geometry says, to the byte.
        """
        __tracebackhide__ = True
        session = self._session
        cell, check = session.measure(self._pair), session.footprint(self._pair)
        if check is None:
            self._not_measured()
        assert cell.census is not None
        found = {
            "kv_bytes_per_token": cell.census.bytes_per_token,
            "kv_compression": check.figure,
            "kv_allocated_mib": (cell.placement.allocated or None) if cell.placement else None,
        }
        self._node.user_properties += [
            (name, value) for name, value in found.items() if value is not None
        ]
        if check.verdict == "pass":
            return
        if check.verdict == "inconclusive":
            pytest.skip(f"{self._pair}: {check.text}")
        pytest.fail(
            f"{self._pair}: {check.text}\n"
            f"  expected  {cell.census.expected_bytes_per_token:,} bytes by the model's geometry\n"
            f"  census    {cell.census.text}\n"
            f"{self._again('footprint')}",
            pytrace=False,
        )

    def _not_measured(self) -> NoReturn:
        """Fail for a cell of which no footprint is known; skip where another test said why."""
        __tracebackhide__ = True
        cell = self._session.measure(self._pair)
        if cell.excused:
            pytest.skip(f"{self._pair}: {cell.verdict}. {cell.message}")
        if self._pair in self._session.account.announced:
            pytest.skip(f"{self._pair} was not measured: {cell.verdict}")
        self._session.account.announced.add(self._pair)
        pytest.fail(
            f"{self._pair}: {cell.verdict}. {cell.message}\n{self._again('footprint')}",
            pytrace=False,
        )

    def check_ceiling(self) -> None:
        """Fail where no context works, or only smaller ones than the floor."""
        __tracebackhide__ = True
        found = self._session.ceiling(self._pair)
        self._node.user_properties.append(("kv_ceiling", found.tokens))
        if found.verdict == "pass":
            return
        if (cell := self._session.measure(self._pair)).excused:
            pytest.skip(f"{self._pair}: {cell.verdict}. {cell.message}")
        if found.verdict == "inconclusive" and not self._session.settings.strict:
            pytest.skip(f"{self._pair}: {found.failure}")
        pytest.fail(f"{self._pair}: {found.failure}\n{self._again('ceiling')}", pytrace=False)

    def _again(self, test: str) -> str:
        typed = self._session.account.invocation
        return f"  again     {repeat_command(typed, self._pair, '-k', test)}"
