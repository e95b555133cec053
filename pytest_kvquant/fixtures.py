"""The public fixtures. Heavy imports happen inside: pytest imports this module on every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_kvquant.matrix import Pair
    from pytest_kvquant.outcomes.baseline import CellBaseline
    from pytest_kvquant.outcomes.live import KVCell
    from pytest_kvquant.outcomes.memory import CellMemory
    from pytest_kvquant.outcomes.quality import CellQuality
    from pytest_kvquant.outcomes.speed import CellSpeed
    from pytest_kvquant.outcomes.zoo import ZooMember
    from pytest_kvquant.session.run import Session


@pytest.fixture(scope="session")
def kv_matrix(pytestconfig: pytest.Config) -> Session:
    """The run: its settings, its plan, ``measure(pair)`` and ``result()``."""
    from pytest_kvquant.session.stash import SESSION

    session = pytestconfig.stash.get(SESSION, None)
    if session is None:
        pytest.skip("KV-cache pairs are measured with --kv-matrix")
    return session


@pytest.fixture
def kv_cell(request: pytest.FixtureRequest) -> KVCell:
    """The cell of this test; a test that asks for it runs once for every cell of the matrix.

    A pair, and ``logits(tokens)`` and ``context()`` of it.
    """
    if not hasattr(request, "param"):
        pytest.skip("KV-cache pairs are measured with --kv-matrix")
    from pytest_kvquant.outcomes.live import KVCell
    from pytest_kvquant.session.stash import SESSION

    return KVCell(request.param, request.config.stash[SESSION])


@pytest.fixture
def kv_quality(kv_matrix: Session, kv_cell: Pair, request: pytest.FixtureRequest) -> CellQuality:
    """The quality of this cell: figures, gates, and ``check(gate)``. Measures it if need be."""
    from pytest_kvquant.outcomes.quality import CellQuality

    return CellQuality(kv_matrix, kv_cell, request.node)


@pytest.fixture
def kv_depth(request: pytest.FixtureRequest) -> int:
    """A depth to time at; a test that asks for it runs once for every depth of the run."""
    if not hasattr(request, "param"):
        pytest.skip("KV-cache pairs are measured with --kv-matrix")
    depth: int = request.param
    return depth


@pytest.fixture
def kv_speed(kv_matrix: Session, kv_cell: Pair, request: pytest.FixtureRequest) -> CellSpeed:
    """The speed of this cell, and ``check(kind, depth, benchmark)``. Ask for it before
    ``benchmark``: it gives pytest-benchmark the clock that replays the samples."""
    if not kv_matrix.speed.on:
        pytest.skip("nothing was measured: --kv-speed off")
    from pytest_kvquant.outcomes.speed import CellSpeed, Replay

    clock = Replay()
    request.node.add_marker(pytest.mark.benchmark(timer=clock))
    config = request.config
    alone = hasattr(config, "workerinput") and not config.getoption("benchmark_disable", True)
    return CellSpeed(kv_matrix, kv_cell, clock, alone=alone)


@pytest.fixture
def kv_memory(kv_matrix: Session, kv_cell: Pair, request: pytest.FixtureRequest) -> CellMemory:
    """The memory of this cell: ``check_footprint()`` and ``check_ceiling()``."""
    from pytest_kvquant.outcomes.memory import CellMemory

    return CellMemory(kv_matrix, kv_cell, request.node)


@pytest.fixture
def kv_baseline(kv_matrix: Session, kv_cell: Pair, request: pytest.FixtureRequest) -> CellBaseline:
    """The baseline of this cell, and ``check()``: it compares, or accepts with
    ``--snapshot-update``."""
    from pytest_kvquant.outcomes.baseline import CellBaseline

    return CellBaseline.of(kv_matrix, kv_cell, request)


@pytest.fixture
def kv_zoo(kv_matrix: Session, request: pytest.FixtureRequest) -> ZooMember:
    """A pair on a tiny model; a test that asks for it runs once for every one of ``--kv-zoo``."""
    if not hasattr(request, "param"):
        pytest.skip("tiny models are measured with --kv-matrix --kv-zoo on")
    from pytest_kvquant.outcomes.zoo import ZooMember

    return ZooMember(kv_matrix, request.param)


class WithoutBenchmark:
    """Stands in where pytest-benchmark is not loaded, so that tests can say so."""

    @pytest.fixture
    def benchmark(self) -> None:
        """No benchmark."""
