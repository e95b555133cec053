"""The build with the mutants, which all of their tests examine."""

from __future__ import annotations

from pathlib import Path

import pytest
from metal.build import CannotBuild

from mutants.build import build, place


@pytest.fixture(scope="session")
def mutated() -> Path:
    """Its libraries, built once."""
    try:
        return build(place())
    except CannotBuild as error:
        pytest.skip(str(error))
