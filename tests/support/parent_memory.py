"""A run of ``pytest --kv-matrix`` in a process of its own, and what memory that process took."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from pytest_kvquant.results.file import read
from pytest_kvquant.results.result import Result

SCRIPT = """
import re, resource, sys, threading, time, pytest

SIZES = re.compile(r"^Rss(?:Anon|Shmem):\\s+(\\d+) kB$", re.MULTILINE)
most = 0

def watch():
    global most
    while True:
        with open("/proc/self/status") as file:
            most = max(most, 1024 * sum(map(int, SIZES.findall(file.read()))))
        time.sleep(0.01)

if sys.platform == "linux":
    threading.Thread(target=watch, daemon=True).start()
pytest.main(sys.argv[1:])
unit = 1 if sys.platform == "darwin" else 1024
print("PEAK", most or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


class Measured(NamedTuple):
    """A result, and the parent's peak."""

    result: Result
    peak: int
    """Bytes; on Linux without mapped files (the reference, libraries), looked at every 10 ms."""
    cpu: float
    """Seconds of all cores, workers included: other work on the machine adds nothing to them."""


def measure(folder: Path, *options: str) -> Measured:
    """Run the matrix in an empty folder."""
    folder.mkdir()
    command = [
        sys.executable, "-c", SCRIPT, "-q", "-p", "no:cacheprovider", "--kv-matrix",
        "--kv-json", "result.json", "--kv-store", "store", *options,
    ]  # fmt: skip
    before = _spent()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    written = folder / "result.json"
    if not written.exists():
        raise RuntimeError(done.stdout + done.stderr)
    return Measured(read(written), int(done.stdout.rpartition("PEAK")[2]), _spent() - before)


def _spent() -> float:
    """Seconds of the processes that were waited for."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime
