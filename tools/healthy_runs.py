"""Healthy builds must pass: whole runs of ``pytest --kv-matrix``, no two of them alike.

python -m tools.healthy_runs KEEP.json [--runs 100] [--first 0] [--model PATH|NAME …] [--lib DIR]
    [--python PATH] [--types q8_0,q4_0,…] [--pairs 3] [--members 2] [--more "--kv-…"] [--seconds N]

Each run has a seed, from which follow its pairs, its model, order and size of chunks, batches, zoo
members and the tokens that kernels are examined with; so an alarm can be had again by ``--first
SEED --runs 1``. What came of each is appended to KEEP.json at once. Exit code 1: an alarm.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from pytest_kvquant.zoo.members import ALL

TYPES = "f16,q8_0,q5_1,q5_0,q4_1,q4_0,iq4_nl"
EMBEDDED = "embedded"


class Told(NamedTuple):
    """What came of a run."""

    seed: int
    build: str
    model: str
    options: list[str]
    rc: int
    seconds: float
    alarms: list[str]
    """Tests that fail, or the end of the output of a run without any."""
    undecided: int
    """Tests that skip because a figure was left open."""


def main() -> int:
    """Run, and say what fails."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("keep", type=Path)
    given.add_argument("--runs", type=int, default=100)
    given.add_argument("--first", type=int, default=0)
    given.add_argument("--model", action="append", default=[])
    given.add_argument("--lib")
    given.add_argument("--python")
    given.add_argument("--types", default=TYPES)
    given.add_argument("--pairs", type=int, default=3)
    given.add_argument("--members", type=int, default=2, help="of the zoo, in each run")
    given.add_argument("--profile", default="quick")
    given.add_argument("--more", default="", help="further options of every run")
    given.add_argument("--seconds", type=float, default=1e9, help="no run begins after so many")
    asked = given.parse_args()
    begun, failed = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(asked.first, asked.first + asked.runs):
            if time.monotonic() - begun > asked.seconds:
                break
            told = _run(seed, asked, Path(folder))
            append(asked.keep, told)
            failed += bool(told.alarms)
            _say(f"{seed} {told.model}: {'ALARM' if told.alarms else 'passes'}, "
                 f"{told.seconds:.0f} s {' '.join(told.options)}")  # fmt: skip
            for line in told.alarms:
                _say(f"    {line}")
    runs = [one for one in kept(asked.keep) if one["build"] == (asked.lib or "installed")]
    fine = sum(not one["alarms"] for one in runs)
    _say(f"{fine} of {len(runs)} runs of this build pass")
    return int(failed > 0)


def _run(seed: int, asked: argparse.Namespace, folder: Path) -> Told:
    model, options = plan(seed, asked)
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kv-matrix", "--kv-speed=off",
        f"--kv-store={folder / 'store'}", f"--kv-baselines={folder / 'none'}", "-q", "-rf",
        f"--kv-profile={asked.profile}", *options, *shlex.split(asked.more),
    ]  # fmt: skip
    if asked.lib:
        command += [f"--kv-lib={asked.lib}"]
    if asked.python:
        command += [f"--kv-python={asked.python}"]
    begun = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    alarms = says_alarm(done.returncode, done.stdout, done.stderr)
    return Told(
        seed, asked.lib or "installed", model, options, done.returncode,
        time.perf_counter() - begun, alarms, done.stdout.count(" inconclusive"),
    )  # fmt: skip


def says_alarm(rc: int, output: str, errors: str) -> list[str]:
    """Tests that fail; of a run that ends otherwise than well without any, its last lines."""
    lines = output.splitlines()
    failing = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return (lines + errors.splitlines())[-15:] if rc and not failing else failing


def plan(seed: int, asked: argparse.Namespace) -> tuple[str, list[str]]:
    """Model and options of a run, which follow from its seed."""
    rng = random.Random(seed)
    types = asked.types.split(",")
    every = [f"{k}/{v}" for k in types for v in types if (k, v) != ("f16", "f16")]
    members = rng.sample([one.name for one in ALL], asked.members)
    model = rng.choice(asked.model or [EMBEDDED])
    ctx = rng.choice((256, 384, 512))
    options = [
        f"--kv-pairs={','.join(rng.sample(every, asked.pairs))}",
        f"--kv-seed={seed}", f"--kv-ctx={ctx}", f"--kv-threads={rng.choice((1, 2))}",
        f"--kv-ubatch={rng.choice((128, 256, 512))}", f"--kv-zoo={','.join(members)}",
    ]  # fmt: skip
    return model, [*options, *([] if model == EMBEDDED else [f"--kv-model={model}"])]


def append(keep: Path, told: Told) -> None:
    """Keep what came of a run."""
    every = [*kept(keep), told._asdict()]
    part = keep.with_suffix(".part")
    part.write_text(json.dumps(every, indent=1), encoding="utf-8")
    part.replace(keep)


def kept(keep: Path) -> list[dict[str, Any]]:
    """What is kept so far."""
    return json.loads(keep.read_text(encoding="utf-8")) if keep.is_file() else []


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
