"""What a worker's environment is made of."""

from __future__ import annotations

import pytest

from pytest_kvquant.machine.environment import BRIEF, PATIENCE, scrub

SHELL = {"PATH": "/bin", "LLAMA_ARG_CACHE_TYPE_K": "q4_0", "GGML_X": "1", "TURBO_SPARSE_V": "1"}


def test_toggles_are_dropped_and_said() -> None:
    found = scrub(SHELL, {})
    assert found.variables == {"PATH": "/bin", **PATIENCE, **BRIEF}
    assert set(found.dropped) == {"LLAMA_ARG_CACHE_TYPE_K", "GGML_X", "TURBO_SPARSE_V"}


def test_the_configuration_wins_over_the_shell() -> None:
    found = scrub(SHELL, {"TURBO_SPARSE_V": "0"})
    assert found.variables["TURBO_SPARSE_V"] == "0"
    assert found.added["TURBO_SPARSE_V"] == "0"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_waiting_policy_of_the_user_s_own_stays_alone(name: str) -> None:
    for found in (scrub({name: "7"}, {}), scrub({}, {name: "7"})):
        assert found.variables == {name: "7", **BRIEF}
