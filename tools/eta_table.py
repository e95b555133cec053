"""How far the forecast of a run is off: ten runs, as a markdown table.

    python tools/eta_table.py [--lib DIR --python PATH] [--model GGUF]

Each run has a terminal of its own, so that every forecast is printed, and a store of its own, so
that the reference is computed. The forecast judged is the first one after a tenth of the run.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LEFT = re.compile(r"about (?:(\d+) h (\d+) min|(\d+) min (\d+) s|([\d.]+) s) left")

LIGHT = "--kv-coverage off --kv-recall 0"
THREE, TWO = "--kv-types f16,q8_0,q4_0", "--kv-types f16,q8_0"
RUNS: dict[str, str] = {
    "9 pairs, short chunks": f"{THREE} --kv-ctx 128 --kv-chunks 8 --kv-speed off {LIGHT}",
    "4 pairs with speed": f"{TWO} --kv-ctx 256 --kv-profile quick {LIGHT}",
    "9 pairs, speed only": f"{THREE} --kv-profile quick -k speed --kv-sample 0.05 {LIGHT}",
    "quality tests only": f"{THREE} --kv-ctx 256 -k quality --kv-speed off --kv-probe off {LIGHT}",
    "4 pairs, kernels examined": f"{TWO} --kv-profile quick --kv-speed off",
}
"""Each is run twice: on a machine that knows nothing of it, and again."""


class Told(NamedTuple):
    """One forecast."""

    at: float
    """Seconds since the run began."""
    left: float


def main() -> int:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("lib", "python", "model"):
        parser.add_argument(f"--{name}")
    parsed = parser.parse_args()
    more = [f"--kv-{name}={value}" for name, value in vars(parsed).items() if value]
    print("| run | took | first forecast after a tenth, at | said | truth | off |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    for name, words in RUNS.items():
        with tempfile.TemporaryDirectory() as cache:
            for which in ("", ", again"):
                took, told = watch([*words.split(), *more], cache)
                print(line(f"{name}{which}", took, told), flush=True)
    return 0


def line(name: str, took: float, told: list[Told]) -> str:
    """A line of the table."""
    late = [one for one in told if one.at >= took / 10 and one.at < took - 1]
    if not late:
        return f"| {name} | {took:.0f} s | – | nothing | – | – |"
    first, truth = late[0], took - late[0].at
    off = abs(first.left - truth) / truth
    figures = f"{first.at:.0f} s | {first.left:.0f} s | {truth:.0f} s | {off:.0%}"
    return f"| {name} | {took:.0f} s | {figures} |"


def watch(words: list[str], cache: str) -> tuple[float, list[Told]]:
    """One run: its seconds, and every forecast that it printed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "--kv-matrix", f"--kv-store={folder}/s", *words]
        shell = {name: value for name, value in os.environ.items() if name != "CI"}
        begun = time.monotonic()
        process, terminal = pty.fork()
        if process == 0:
            os.chdir(folder)
            os.execvpe(
                command[0],
                command,
                {**shell, "TERM": "xterm", "COLUMNS": "200", "XDG_CACHE_HOME": cache},
            )
        told: list[Told] = []
        rest = ""
        while True:
            try:
                data = os.read(terminal, 1 << 14).decode(errors="replace")
            except OSError:
                break
            if not data:
                break
            now = time.monotonic() - begun
            rest = (rest + data)[-4000:]
            for found in LEFT.finditer(rest):
                hours, minutes, whole, seconds, short = (float(x or 0) for x in found.groups())
                told.append(Told(now, hours * 3600 + (minutes + whole) * 60 + seconds + short))
            rest = rest[-200:] if not LEFT.search(rest[-200:]) else ""
        os.waitpid(process, 0)
        return time.monotonic() - begun, told


if __name__ == "__main__":
    raise SystemExit(main())
