"""A run in a process of its own that is stopped on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from support.outer import CI_VARIABLES, SMALL, Outcome

PATIENCE = 120.0
"""Seconds after which a run that should have come so far, or ended, is given up."""

TIMES = {
    "seconds", "decode_seconds", "timing", "started", "sittings", "wall", "free", "reused",
    "memory",
}  # fmt: skip
"""Keys of a result that differ between two runs of the same thing; ``reused`` with the store."""


def as_from_a_terminal() -> None:
    """In the child before it begins: signals as a shell gives them to what it runs in front.

    ``nohup``, and ``&`` in a script, leave some of them ignored, and whoever is started inherits
    that: the tests would wait for the end of a run that was told to hear no signal.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def as_under_nohup() -> None:
    """In the child before it begins: a terminal that is closed is none of its business."""
    as_from_a_terminal()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


class Run:
    """A run under way."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] = as_from_a_terminal,
    ) -> None:
        self.folder, self.store = folder, folder / "store"
        left_out = {*CI_VARIABLES, "PYTHONUNBUFFERED"}  # lines come at once without it, too
        shell = {name: value for name, value in os.environ.items() if name not in left_out}
        self._output = folder / f"output-{time.monotonic_ns()}.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "--kv-matrix", *SMALL, f"--kv-store={self.store}",
                 "-p", "no:cacheprovider", *arguments],
                cwd=folder,
                env={**shell, "COLUMNS": "160", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=before,  # noqa: PLW1509 (one thread)
            )  # fmt: skip

    @property
    def text(self) -> str:
        """What it has said."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def parts(self, kind: str = "cell") -> int:
        """Finished parts in the journal."""
        return len(list(self.store.glob(f"**/journal/*/{kind}-*.part")))

    def wait_for_parts(self, count: int, kind: str = "cell") -> None:
        """Until so many parts are finished."""
        self.wait_until(lambda: self.parts(kind) >= count)

    def wait_for(self, words: str) -> None:
        """Until it says so."""
        self.wait_until(lambda: words in self.text)

    def wait_until(self, reached: Any) -> None:
        """Until a condition holds; the run must not end before."""
        end = time.monotonic() + PATIENCE
        while not reached():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < end, self.text
            time.sleep(0.01)

    def workers(self) -> list[psutil.Process]:
        """Its processes, and theirs."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def stop(self, number: signal.Signals) -> Outcome:
        """Send a signal and see how it ends."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> Outcome:
        """See how it ends by itself."""
        code = self.process.wait(PATIENCE)
        return Outcome(code, self.text)


@contextmanager
def running(folder: Path, *arguments: str, **options: Any) -> Iterator[Run]:
    """A run that does not outlive the block."""
    run = Run(folder, *arguments, **options)
    try:
        yield run
    finally:
        for process in run.workers():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        run.process.kill()
        run.process.wait()


def gone(processes: list[psutil.Process], within: float = 20.0) -> bool:
    """Whether all of them end within so many seconds."""
    _, alive = psutil.wait_procs(processes, timeout=within)
    return not alive


def timeless(value: Any) -> Any:
    """A result without what differs between two runs of one thing: times, and KiB of memory."""
    if isinstance(value, dict):
        if value.get("name") == "steady_memory":
            return value["verdict"]
        return {key: timeless(one) for key, one in value.items() if key not in TIMES}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def read(path: Path) -> dict[str, Any]:
    """A JSON result."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
