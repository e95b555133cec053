"""Every gate and check there is: those of this folder, and those of installed packages.

A package adds its own through the entry point group ``kvquant.checks``: each entry point names a
module whose decorated functions count as the ones here do.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from types import ModuleType

from pytest_kvquant import checks
from pytest_kvquant.checks.budget import Budget
from pytest_kvquant.checks.declaration import ATTRIBUTE, NEEDS, Declaration, Needs
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.results.gate import Unit

ENTRY_POINTS = "kvquant.checks"


@functools.cache
def declared() -> tuple[Declaration, ...]:
    """All declarations, in the order in which a cell is judged.

    Raises:
        SettingsError: a module of another package cannot be imported, or a name is taken.
    """
    found: dict[str, Declaration] = {}
    for module in [*_own(), *_foreign()]:
        for one in in_module(module):
            if found.setdefault(one.name, one) is not one:
                raise SettingsError(
                    f"Two gates or checks are called '{one.name}': the one of {module.__name__} "
                    f"and the one of {found[one.name].decide.__module__}. Rename one of them."
                )
    key = {needs: at for at, needs in enumerate(NEEDS)}
    return tuple(sorted(found.values(), key=lambda one: (key[one.needs], one.order, one.name)))


def gates(path: Needs | None = None) -> list[Declaration]:
    """The gates, or those of one path."""
    return [one for one in declared() if one.is_gate and path in (None, one.needs)]


def checks_that_need(*needs: Needs) -> list[Declaration]:
    """The checks that can be decided once this is measured."""
    return [one for one in declared() if not one.is_gate and one.needs in needs]


def find(name: str) -> Declaration | None:
    """A gate or check by name; ``None`` for one that this installation does not have."""
    return next((one for one in declared() if one.name == name), None)


def budgets() -> tuple[Budget, ...]:
    """All budgets there are, in the order in which a cell is judged.

    Raises:
        SettingsError: two that differ have the same key.
    """
    found: dict[str, Budget] = {}
    for one in declared():
        for budget in one.budgets:
            if found.setdefault(budget.key, budget) != budget:
                raise SettingsError(
                    f"'{one.name}' declares a budget '{budget.key}', and another gate or check has "
                    "one of that name. Rename one of them."
                )
    return tuple(found.values())


def budget_units() -> dict[str, Unit]:
    """The unit of every budget, by key: what tables of the configuration may say."""
    return {one.key: one.unit for one in budgets()}


def in_module(module: ModuleType) -> Iterator[Declaration]:
    """The declarations of a module."""
    for value in vars(module).values():
        found = getattr(value, ATTRIBUTE, None)
        if isinstance(found, Declaration) and found.decide.__module__ == module.__name__:
            yield found


def _own() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(checks.__path__, f"{checks.__name__}."):
        if found.name != __name__:
            yield importlib.import_module(found.name)


def _foreign() -> Iterable[ModuleType]:
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            module = point.load()
        except Exception as error:  # whatever a stranger's module raises is told in one line
            raise SettingsError(
                f"The checks '{point.name}' of another package ({point.value}) cannot be "
                f"imported: {type(error).__name__}: {error}. Mend or uninstall that package."
            ) from error
        yield module
