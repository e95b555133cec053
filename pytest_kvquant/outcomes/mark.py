"""The arguments of ``@pytest.mark.kv``."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from pytest_kvquant.config.budgets import BatchedBudgets
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import Pair

NAME = "kv"


class OwnBudgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``budgets`` may say: all that can be judged again from the figures per chunk."""

    kl_mean: float | None = None
    kl_tail: float | None = None
    ln_ppl: float | None = None
    top1_flips: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.given.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} = {value} must be a number from 0 up")

    @property
    def given(self) -> dict[str, float]:
        """Those that were given."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in values.items() if value is not None}

    def over(self, budgets: BatchedBudgets) -> BatchedBudgets:
        """Budgets of a cell, with these in their place."""
        return msgspec.structs.replace(budgets, **self.given)


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of the marker."""

    pairs: tuple[str, ...] | None = None
    budgets: OwnBudgets = OwnBudgets()

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
    try:
        return msgspec.convert(given, Mark)
    except msgspec.ValidationError as error:
        raise SettingsError(f"@pytest.mark.{NAME}: {error}.") from None
