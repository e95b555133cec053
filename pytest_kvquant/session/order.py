"""The order of a run's tests: cell by cell; and giving up after a cell that failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_kvquant.matrix import Pair

if TYPE_CHECKING:
    from pytest_kvquant.session.run import Session

WHOLE_RUN = "kv_matrix"
"""The fixture of a test that looks at the run as a whole, if it asks for no cell."""


MEASURING = frozenset({"kv_quality", "kv_baseline", "kv_memory"})
"""Fixtures for whose sake a cell's quality is measured."""


def cell_of(item: pytest.Item | None) -> Pair | None:
    """The cell that a test asks for."""
    call = getattr(item, "callspec", None)
    found = call.params.get("kv_cell") if call is not None else None
    return found if isinstance(found, Pair) else None


def cell_by_cell(
    items: Sequence[pytest.Item], pairs: Sequence[Pair], *, first: Path, last: Path
) -> list[pytest.Item]:
    """The tests of each cell together, the cells in the order of the run.

    Args:
        first: the file whose tests come first within a cell: they say what the cell is.
        last: the file whose tests come last: nothing is accepted before all of it is judged.
    """
    places = {pair: at for at, pair in enumerate(pairs)}

    def key(item: pytest.Item) -> tuple[int, int]:
        pair = cell_of(item)
        if pair is not None:
            return places[pair], int(item.path != first) + int(item.path == last)
        whole = WHOLE_RUN in getattr(item, "fixturenames", ())
        return (len(places), 0) if whole else (-1, 0)

    return sorted(items, key=key)


def tell_what_is_asked(items: Sequence[pytest.Item], run: Session) -> None:
    """Tell a run which of its cells tests ask for, and which of these to time or to search."""
    asked, measured, timed, searched = set(), set(), set(), set()
    for item in items:
        if (pair := cell_of(item)) is None:
            continue
        asked.add(pair)
        names = getattr(item, "fixturenames", ())
        if "kv_speed" in names:
            timed.add(pair)
        if item.name.startswith("test_context_ceiling"):
            searched.add(pair)
        elif not MEASURING.isdisjoint(names):
            measured.add(pair)
    run.account.selected = [pair for pair in run.pairs if pair in asked]
    if not any(hasattr(item.config, "workerinput") for item in items[:1]):
        # a process of several is given its tests one by one
        run.speed.together = tuple(pair for pair in run.pairs if pair in timed)
    run.forecast.plan(run.account, measured=len(measured), timed=len(timed), searched=len(searched))


def after(item: pytest.Item, following: pytest.Item | None, run: Session) -> None:
    """After a test: if it was the last one of its cell, say so, and give up where that is asked."""
    pair = cell_of(item)
    if pair is None or pair == cell_of(following):
        return
    run.finished(pair)
    account = run.account
    if not run.settings.fail_fast or pair not in account.failed:
        return
    asked = account.selected
    left = [one for one in asked if one not in account.measured]
    item.session.shouldfail = (
        f"--kv-fail-fast: {pair} failed; {len(left)} of {len(asked)} pairs were not measured"
    )
