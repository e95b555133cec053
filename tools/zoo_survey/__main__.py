"""``python -m tools.zoo_survey``: a table of all architectures; exit code 1 if a fault is ours.

Options: ``--lib DIR --python PATH --name NAME`` for another build, ``--types f16,q8_0,…`` or
``--pairs K/V,…``, ``--only NAME,…``, ``--shard 2/4`` for every fourth architecture from the second
on, ``--jobs N`` at a time, ``--models DIR`` to keep the models. ``--keep`` puts the rows into
docs/zoo-survey.json and docs/zoo-survey.md, in the place of those of the same build.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from tools.zoo_survey import lending, names, page
from tools.zoo_survey.measure import Finding

Findings = dict[str, Finding]


def build(architecture: str, path: Path, options: argparse.Namespace) -> Finding | None:
    """Write the model, in a process of its own: the library may abort; ``None``: it is there."""
    command = [options.python or sys.executable, "-m", "tools.zoo_survey.ask", architecture, path]
    run = subprocess.run(
        [*map(str, command), options.lib or ""],
        capture_output=True, text=True, check=False, env=lending(),
    )  # fmt: skip
    if run.returncode == 0:
        return None
    lines = [
        line for line in (run.stdout + run.stderr).splitlines()
        if "error" in line.lower() or "ASSERT" in line
    ]  # fmt: skip
    reason = lines[-1].strip()[-200:] if lines else f"exit code {run.returncode}"
    return Finding(status="library", text=f"no model could be made: {reason}")


def measured(path: Path, pairs: list[str], options: argparse.Namespace) -> Findings:
    """The findings of one model, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "tools.zoo_survey.measure", str(path), " ".join(pairs),
         options.lib or "", options.python or ""],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        return msgspec.convert(json.loads(run.stdout.splitlines()[-1]), Findings)
    except (IndexError, ValueError, msgspec.ValidationError):
        return {"*": Finding(status="ours", text=run.stderr[-400:])}


def main() -> int:
    """Survey, print, and say whether a fault is ours."""
    parser = argparse.ArgumentParser(prog="python -m tools.zoo_survey")
    parser.add_argument("--lib")
    parser.add_argument("--python")
    parser.add_argument("--types", default="f16,q8_0,q4_0")
    parser.add_argument("--pairs", help="these and no product of the types")
    parser.add_argument("--only")
    parser.add_argument("--shard", default="1/1")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--name", default="llama.cpp of bindings 0.3.36", help="of the build")
    parser.add_argument("--keep", action="store_true", help="write the page of docs/")
    options = parser.parse_args()
    types = options.types.split(",")
    pairs = [f"{k}/{v}" for k, v in itertools.product(types, types)]
    pairs = options.pairs.split(",") if options.pairs else pairs
    known = options.only.split(",") if options.only else names.known(
        options.lib, options.python or sys.executable
    )  # fmt: skip
    part, of = map(int, options.shard.split("/"))
    found = []
    print(page.HEAD, end="", flush=True)
    with tempfile.TemporaryDirectory(prefix="zoo-survey-") as folder:
        models = options.models or Path(folder)
        models.mkdir(parents=True, exist_ok=True)

        def surveyed(architecture: str) -> page.SurveyRow:
            path = models / f"{architecture}.gguf"
            failed = None if path.exists() else build(architecture, path, options)
            findings = {"*": failed} if failed else measured(path, pairs, options)
            return page.row(options.name, architecture, findings)

        with ThreadPoolExecutor(options.jobs) as crew:
            for row in crew.map(surveyed, known[part - 1 :: of]):
                found.append(row)
                print(page.line(row), end="", flush=True)
                if options.keep:  # at once: a survey takes long, and may be stopped
                    page.keep([row])
    print(page.total(found))
    return 1 if any(row.status == "ours" for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
