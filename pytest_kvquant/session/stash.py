"""Where a run lies in pytest's configuration; cheap to import, for pytest does on every run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_kvquant.session.distribution import Distribution
    from pytest_kvquant.session.run import Session

SUITE = Path(__file__).parents[1] / "suite"
"""The packaged tests."""

SESSION: pytest.StashKey[Session] = pytest.StashKey()
DISTRIBUTION: pytest.StashKey[Distribution] = pytest.StashKey()
"""In the process that controls those of pytest-xdist, which have a session each."""
