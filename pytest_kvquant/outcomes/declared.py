"""The tests of the suite, made from the declarations of gates and checks."""

from __future__ import annotations

from collections.abc import Callable

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.declaration import Declaration
from pytest_kvquant.outcomes.quality import CellQuality


def declared_tests(*groups: str) -> dict[str, Callable[..., None]]:
    """The tests of some files of the suite, by name, in the order of the declarations."""
    return {one.test: _test(one) for one in registry.declared() if one.group in groups}


def declared_elsewhere(*known: str) -> dict[str, Callable[..., None]]:
    """The tests of every group that has no file of its own."""
    return {one.test: _test(one) for one in registry.declared() if one.group not in known}


def _test(one: Declaration) -> Callable[..., None]:
    def test(kv_quality: CellQuality) -> None:
        (kv_quality.check if one.is_gate else kv_quality.check_fact)(one.name)

    test.__name__ = test.__qualname__ = one.test
    test.__doc__ = one.document
    return test
