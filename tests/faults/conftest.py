from __future__ import annotations

import pytest

from faults.record import Laboratory


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """A matrix of four cells on eight chunks."""
    return Laboratory(tmp_path_factory.mktemp("faults"), 8, ("f16", "q8_0"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Laboratory:
    """The default matrix on forty chunks; evidence is kept in pytest's cache between runs."""
    keep = pytestconfig.cache.mkdir("faults") if pytestconfig.cache is not None else None
    return Laboratory(tmp_path_factory.mktemp("faults"), 40, (), keep)
