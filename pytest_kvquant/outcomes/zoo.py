"""A pair on a member of the zoo as a test outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_kvquant.errors import RunRefused

if TYPE_CHECKING:
    from pytest_kvquant.results.zoo import ZooCell
    from pytest_kvquant.session.run import Session
    from pytest_kvquant.session.zoo import ZooPlace


class ZooMember:
    """One pair on one tiny model, as a test sees it."""

    def __init__(self, session: Session, place: ZooPlace) -> None:
        self._session, self._place = session, place

    @property
    def cell(self) -> ZooCell:
        """The whole record."""
        return self._session.zoo.measure(self._place)

    def check(self) -> None:
        """Pass, fail or skip by what its kernels show."""
        __tracebackhide__ = True
        try:
            found = self.cell
        except RunRefused as error:
            pytest.fail(f"{self._place}: {error}", pytrace=False)
        where = f"{found.member} ({found.like}), {found.pair}"
        if found.verdict == "pass":
            return
        if found.verdict == "fail":
            pytest.fail(f"{where}: {found.text}", pytrace=False)
        if found.verdict == "inconclusive" and self._session.settings.strict:
            pytest.fail(f"{where}: {found.text}", pytrace=False)
        pytest.skip(f"{where}: {found.text}")
