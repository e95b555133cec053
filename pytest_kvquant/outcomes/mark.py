"""The arguments of ``@pytest.mark.kv``."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.config.complaints import complaint, nearest
from pytest_kvquant.config.file import why_no_budget
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.gate import Unit

NAME = "kv"


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of the marker."""

    pairs: tuple[str, ...] | None = None
    budgets: dict[str, float] = {}
    """By key: all that can be judged again from the figures per chunk."""

    def select(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Those of the cells of a run that the test is for, in the run's order.

        Raises:
            SettingsError: a malformed pattern.
        """
        if self.pairs is None:
            return list(pairs)
        return [pair for pair in pairs if any(pair.matches(pattern) for pattern in self.pairs)]


def read_mark(node: pytest.Item) -> Mark:
    """The marker of a test, the closest one; an empty one where there is none.

    Raises:
        SettingsError: arguments that cannot be meant.
    """
    marker = node.get_closest_marker(NAME)
    if marker is None:
        return Mark()
    if marker.args:
        raise SettingsError(f"@pytest.mark.{NAME} takes pairs=… and budgets=…, by name.")
    given = dict(marker.kwargs)
    if isinstance(given.get("pairs"), str):
        given["pairs"] = [given["pairs"]]
    if (wrong := complaint(Mark, given)) is not None:
        keys, text = wrong
        where = "" if keys[0] not in Mark.__struct_fields__ else f"{'.'.join(keys)}: "
        raise SettingsError(f"@pytest.mark.{NAME}: {where}{text}")
    mark = msgspec.convert(given, Mark)
    units = _judged_again()
    for key, value in mark.budgets.items():
        if key not in units:
            raise SettingsError(
                f"@pytest.mark.{NAME}: budgets has '{key}', and figures kept per chunk are "
                f"judged by {', '.join(units)}{nearest(key, units)}"
            )
        if why := why_no_budget(key, value, units[key]):
            raise SettingsError(f"@pytest.mark.{NAME}: {why}.")
    return mark


def _judged_again() -> dict[str, Unit]:
    """The unit, by key, of what gates of the prefill path hold their figures against."""
    held = (one.budgets[0] for one in registry.gates("prefill"))
    return {budget.key: budget.unit for budget in held}
