"""How far the forecast of a run is off: ten runs of different kinds, as a markdown table.

    python tools/eta_table.py [--lib DIR --python PATH] [--model GGUF]

Each run has a terminal of its own (so that every forecast is printed) and a store of its own (so
that the reference is computed). The forecast judged is the first one after a tenth of the run.
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
    "9 pairs, quick, no speed": f"{THREE} --kv-profile quick --kv-speed off {LIGHT}",
    "4 pairs with speed": f"{TWO} --kv-profile quick {LIGHT}",
    "4 pairs, kernels examined": f"{TWO} --kv-profile quick --kv-speed off",
    "4 pairs, everything": f"{TWO} --kv-profile quick",
    "9 pairs, 12 chunks each": f"{THREE} --kv-chunks 12 --kv-speed off {LIGHT}",
    "9 pairs, speed only": f"{THREE} --kv-profile quick -k speed {LIGHT}",
    "long chunks": f"{TWO} --kv-ctx 2048 --kv-chunks 6 --kv-speed off {LIGHT}",
    "short chunks, pr": f"{THREE} --kv-ctx 128 --kv-speed off {LIGHT}",
    "decode heavy": f"{THREE} --kv-decode 512 --kv-chunks 4 --kv-speed off {LIGHT}",
    "quality tests only": f"{THREE} -k quality --kv-speed off --kv-probe off {LIGHT}",
}


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
        took, told = watch([*words.split(), *more])
        late = [one for one in told if one.at >= took / 10]
        if not late:
            print(f"| {name} | {took:.0f} s | – | nothing | – | – |", flush=True)
            continue
        first, truth = late[0], took - late[0].at
        off = abs(first.left - truth) / truth
        print(
            f"| {name} | {took:.0f} s | {first.at:.0f} s | {first.left:.0f} s | {truth:.0f} s "
            f"| {off:.0%} |",
            flush=True,
        )
    return 0


def watch(words: list[str]) -> tuple[float, list[Told]]:
    """One run: its seconds, and every forecast that it printed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "--kv-matrix", f"--kv-store={folder}/s", *words]
        shell = {name: value for name, value in os.environ.items() if name != "CI"}
        begun = time.monotonic()
        process, terminal = pty.fork()
        if process == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, {**shell, "TERM": "xterm", "COLUMNS": "200"})
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
