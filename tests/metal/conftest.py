"""A Mac on any machine: runs on the simulated Metal backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.run import QUICK

from metal.build import CannotBuild, build
from metal.tables import STOCK, Table
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.result import Result
from pytest_kvquant.session.observer import Listener
from pytest_kvquant.session.run import Session

HOOK_FILE = Path(__file__).with_name("hook.py")


class Mac(NamedTuple):
    """What starts runs on the simulated backend."""

    library: Path
    folder: Path

    def variables(self, table: Table = STOCK, **faults: object) -> dict[str, str]:
        """Variables of ``[environment]``; faults are the backend's, without their prefix."""
        return {
            **table.variables(),
            "SIM_METAL_LIBRARY": str(self.library),
            HOOK: str(HOOK_FILE),
            **{f"SIM_METAL_{name}": str(value) for name, value in faults.items()},
        }

    def session(
        self,
        pairs: str,
        *,
        table: Table = STOCK,
        shell: dict[str, str] | None = None,
        faults: dict[str, object] | None = None,
        **settings: Any,
    ) -> Session:
        """A run of a few pairs."""
        environment = self.variables(table, **(faults or {}))
        chosen: dict[str, Any] = {
            **QUICK,
            "store": self.folder / "store",
            "pairs": tuple(pairs.split()),
            "speed": "off",
            "environment": environment,
            **settings,
        }
        return Session(Settings(**chosen), {**os.environ, **(shell or {})}, Listener())

    def measure(self, pairs: str, **options: Any) -> Result:
        """The whole result of a few pairs."""
        session = self.session(pairs, **options)
        for pair in session.pairs:
            session.measure(pair)
        return session.result()

    def cells(self, pairs: str, **options: Any) -> dict[str, Cell]:
        """Cells by pair."""
        return {cell.pair: cell for cell in self.measure(pairs, **options).cells}


@pytest.fixture(scope="session")
def metal_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated backend, built once."""
    try:
        return build(tmp_path_factory.mktemp("metal"))
    except CannotBuild as error:
        pytest.skip(f"the simulated Metal backend is not built: {error}")


@pytest.fixture
def mac(metal_library: Path, tmp_path: Path) -> Mac:
    """A Mac with an M5 Max and 26 GiB of working set, unless faults say otherwise."""
    return Mac(metal_library, tmp_path)
