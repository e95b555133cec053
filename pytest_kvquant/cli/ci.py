"""``kvquant ci``: the ready-made gates of docs/ci, written to where a project keeps such files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.files import write
from pytest_kvquant.errors import ResultError

PACKAGE = Path(__file__).resolve().parents[1]
PLACES = (PACKAGE / "ci", PACKAGE.parent / "docs" / "ci")
"""Where the files lie: in an installed package, in a checkout."""


class ReadyMade(NamedTuple):
    """A ready-made gate."""

    file: str
    """In docs/ci."""
    to: str
    """In a project."""
    then: str
    """What is left to do, in a line."""
    program: bool = False
    """Whether it has to be executable."""


GATES = {
    "action": ReadyMade(
        "action.yml",
        ".github/actions/kv-gate/action.yml",
        "in a workflow, after the build: uses: ./.github/actions/kv-gate, with lib and bindings",
    ),
    "hosted": ReadyMade(
        "hosted.yml",
        ".github/workflows/kv-gate.yml",
        "set its build step and the release of the bindings (kvquant doctor names it)",
    ),
    "gitlab": ReadyMade(
        "gitlab.yml",
        "kv-gate.gitlab-ci.yml",
        "in .gitlab-ci.yml: include: {local: kv-gate.gitlab-ci.yml}, and set KV_LIB, KV_BINDINGS",
    ),
    "pre-push": ReadyMade(
        "pre-push",
        ".git/hooks/pre-push",
        "KV_LIB and KV_OPTIONS of the shell override its defaults",
        program=True,
    ),
}


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    parser = commands.add_parser(
        "ci", help="write a ready-made gate for GitHub, GitLab or git's pre-push hook"
    )
    parser.add_argument("gate", choices=tuple(GATES), help="which one")
    parser.add_argument("--out", type=Path, metavar="PATH", help="file (default: its usual place)")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    parser.set_defaults(run=_ci)


def _ci(parsed: argparse.Namespace) -> int:
    gate = GATES[parsed.gate]
    out: Path = parsed.out or Path(gate.to)
    if out.exists() and not parsed.force:
        raise ResultError(f"{out} is there already; --force writes over it.")
    write(out, _source(gate).read_bytes())
    if gate.program and str(out) != "-":
        out.chmod(0o755)
    if str(out) != "-":
        print(f"kvquant ci: wrote {out}; {gate.then}")
    return 0


def _source(gate: ReadyMade) -> Path:
    for place in PLACES:
        if (place / gate.file).is_file():
            return place / gate.file
    raise ResultError(f"This installation lacks {gate.file}; it is in docs/ci of the sources.")
