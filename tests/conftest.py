"""What every test of the project shares: pytester, the big material, a store of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pytest_kvquant.machine.environment import PATIENCE, PATIENCE_OF_THE_USER

# No test asserts a time: on a busy machine an example may take as long as it takes.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# What a shell starts in the background ignores Ctrl-C, with nohup a hangup too, and so would the
# runs that are interrupted here.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Hundreds of tests start a pytest of their own: with this set each would compile every module anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Both halves of `make test` run at once, and threads of one that spin while they wait take the
# cores from the other: a test beside another took 73 s with the plugin's own 3,000 turns, 28 s with
# these; alone 17 s and 20 s. Logits do not depend on it.
if not PATIENCE_OF_THE_USER & os.environ.keys():
    os.environ.update(PATIENCE, GOMP_SPINCOUNT="300")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the larger models and corpora, beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the larger models and corpora (../shared) are not here")
    return SHARED


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep references of tests out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
