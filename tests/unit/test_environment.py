"""What a worker's environment is made of."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.machine.environment import (
    BINDINGS,
    BRIEF,
    PATIENCE,
    SINGLE,
    WORKER_HOOK,
    hook_in_words,
    scrub,
)
from pytest_kvquant.session.builds import library_directory

SHELL = {"PATH": "/bin", "LLAMA_ARG_CACHE_TYPE_K": "q4_0", "GGML_X": "1", "TURBO_SPARSE_V": "1"}


def test_toggles_are_dropped_and_said() -> None:
    found = scrub(SHELL, {})
    assert found.variables == {"PATH": "/bin", **PATIENCE, **SINGLE, **BRIEF}
    assert set(found.dropped) == {"LLAMA_ARG_CACHE_TYPE_K", "GGML_X", "TURBO_SPARSE_V"}


def test_where_the_bindings_are_pointed_is_heeded_and_not_called_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scrub({**SHELL, BINDINGS: "build"}, {})
    assert BINDINGS not in found.variables
    assert BINDINGS not in found.dropped
    monkeypatch.chdir(tmp_path)
    assert library_directory(Settings(), {BINDINGS: "build"}) == str(tmp_path / "build")
    assert library_directory(Settings(lib=Path("other")), {BINDINGS: "build"}) == str(
        tmp_path / "other"
    )
    assert library_directory(Settings(), {}) is None


def test_the_configuration_wins_over_the_shell() -> None:
    found = scrub(SHELL, {"TURBO_SPARSE_V": "0"})
    assert found.variables["TURBO_SPARSE_V"] == "0"
    assert found.added["TURBO_SPARSE_V"] == "0"


def test_a_worker_hook_counts_where_it_is_configured_and_never_from_the_shell(
    tmp_path: Path,
) -> None:
    hook = tmp_path / "hook.py"
    hook.write_text("print(1)")
    found = scrub({WORKER_HOOK: str(hook)}, {})
    assert WORKER_HOOK not in found.variables
    assert found.dropped == {WORKER_HOOK: str(hook)}
    assert not found.hook
    found = scrub({WORKER_HOOK: "/another"}, {WORKER_HOOK: str(hook)})
    assert found.variables[WORKER_HOOK] == str(hook)
    assert found.hook == hashlib.sha256(b"print(1)").hexdigest()[:16]
    said = hook_in_words(found, found.hook)
    assert f"every worker runs {hook} first" in said
    assert found.hook in said


def test_a_worker_hook_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(SettingsError, match=r"absent.py cannot be read \(No such file"):
        assert scrub({}, {WORKER_HOOK: "absent.py"}).hook


def test_parent_and_child_mean_the_same_variable() -> None:
    assert HOOK == WORKER_HOOK


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_waiting_policy_of_the_user_s_own_stays_alone(name: str) -> None:
    for found in (scrub({name: "7"}, {}), scrub({}, {name: "7"})):
        assert found.variables == {name: "7", **SINGLE, **BRIEF}
