"""What Linux has and macOS lacks, hidden: the code goes other ways and says what it cannot do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_kvquant.engine.protocol import Ring
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.machine import hardware, memory, strain
from pytest_kvquant.machine.devices import occupy


def test_shared_memory_is_a_file_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.memfd_create", raising=False)
    ring = Ring.create(vocabulary=4, budget=64)
    other = Ring(ring.fd, ring.slots, ring.rows, ring.vocabulary)
    ring.slot(1)[:] = 3
    assert np.all(other.slot(1) == 3)


def test_a_process_cannot_be_kept_to_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_setaffinity", raising=False)
    with pytest.raises(SettingsError, match="cannot keep a process to cores"):
        occupy("CPU:0-1")


def test_memory_without_proc(tmp_path: Path) -> None:
    assert memory.available(tmp_path) > 0
    assert strain._linux_swapped_out(tmp_path / "vmstat") is None


def test_threads_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert hardware.default_threads() >= 1
    assert hardware.describe("chip", []).threads >= 1


def test_libraries_in_use_are_found_without_proc(tmp_path: Path) -> None:
    """As macOS's dyld tells them; here a stand-in with dyld's two functions."""
    code = """
import sys, ctypes
from pathlib import Path
from pytest_kvquant.engine.child import library_files as library
exists = Path.exists
Path.exists = lambda self, **more: False if str(self).startswith("/proc") else exists(self, **more)
sys.platform = "darwin"
library._dyld_images = lambda: ["/opt/lib/libggml-base.dylib", "/usr/lib/libc.dylib",
                                "/opt/lib/libllama.0.dylib", "/opt/lib/libggml-metal.so"]
print(*[file.name for file in library.loaded_files(Path("."))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["libggml-base.dylib", "libggml-metal.so", "libllama.0.dylib"]
