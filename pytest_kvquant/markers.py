"""``@pytest.mark.kv(pairs=…, budgets=…)``: which cells a test runs for, and budgets of its own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.outcomes.mark import read_mark


def select(test: pytest.Item, pairs: Sequence[Pair]) -> list[Pair]:
    """The cells that a test is collected for; a marker that cannot be meant is its failure."""
    __tracebackhide__ = True
    try:
        return read_mark(test).select(pairs)
    except SettingsError as error:
        pytest.fail(f"{test.nodeid}: {error}", pytrace=False)
