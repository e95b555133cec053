"""``kvquant init``: a commented ``kvquant.toml`` for this machine's model and library."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvquant.cli.ci import PACKAGE
from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.files import write
from pytest_kvquant.config.options import OPTIONS
from pytest_kvquant.errors import SettingsError

if TYPE_CHECKING:
    from pytest_kvquant.cli.doctor_report import Report

NAME = "kvquant.toml"
USUAL = ("f16", "q8_0", "q5_1", "q4_0")
"""Types that every build has, and that a first matrix is made of."""

FORKS = ("turbo4", "turbo3", "turbo2", "tbq4", "tbq3", "iso4", "iso3")
"""Names of types that forks are made for: where the library has them, they are what is new."""


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    init = commands.add_parser(
        "init",
        help="write a commented kvquant.toml for a model and a library",
        description="Looks at the model and the library as kvquant doctor does, and writes what a "
        "run would need to be told. What is as it is by default stands there as a comment.",
    )
    init.add_argument("--kv-model", metavar="PATH", help="GGUF model (default: the embedded one)")
    init.add_argument("--kv-lib", metavar="DIR", help="directory of the llama.cpp build")
    init.add_argument("--kv-python", metavar="PATH", help="interpreter whose bindings fit it")
    init.add_argument("--kv-corpus", metavar="PATH", help="text to evaluate on")
    (profile,) = (option for option in OPTIONS if option.name == "profile")
    init.add_argument(
        "--kv-profile", choices=profile.choices, help="how much is measured (default: pr)"
    )
    init.add_argument(
        "--kv-pairs", metavar="K/V,…", help="these pairs only (default: of all types)"
    )
    init.add_argument("--out", type=Path, default=Path(NAME), help=f"file (default: {NAME})")
    init.add_argument("--force", action="store_true", help="write over a file that is there")
    init.set_defaults(run=_init, measures=True)


def _init(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.cli.doctor_examine import examine

    out: Path = parsed.out
    if out.exists() and not parsed.force and str(out) != "-":
        raise SettingsError(f"{out} is there already; --force writes over it.")
    names = (*LOOKED_AT, "profile", "pairs")
    typed = {name: getattr(parsed, f"kv_{name}") for name in names}
    report = examine(typed, config=None, root=Path(os.devnull).parent, shell=dict(os.environ))
    text = "".join(f"{line}\n" for line in lines(report, typed, out.parent))
    write(out, text.encode())
    if str(out) != "-":
        ready = (
            "A run would start: pytest --kv-matrix"
            if report.healthy
            else "kvquant doctor says what is wrong"
        )
        print(f"kvquant init: wrote {out}. {ready}.")
    return 0 if report.healthy else 1


def lines(report: Report, typed: Mapping[str, str | None], folder: Path) -> Iterator[str]:
    """The file, line by line."""
    yield "# Settings of pytest --kv-matrix; every key is an option without its --kv-."
    yield "# Paths are relative to this file. kvquant doctor says what a run would use."
    yield ""
    for name in ("model", "lib", "python", "corpus"):
        found = next((one.text for one in report.findings if one.name == LOOKED_AT[name]), "")
        if found:
            yield f"# {_here(found, folder)}"
        value = typed[name]
        path = _relative(Path(value), folder) if value else EXAMPLES[name]
        yield f"{'' if value else '# '}{name} = {_quoted(path)}"
    yield ""
    yield from _types(report)
    pairs = typed.get("pairs")
    listed = ", ".join(_quoted(pair.strip()) for pair in (pairs or FEW).split(","))
    yield "# Or these pairs only, beside f16/f16."
    yield f"{'' if pairs else '# '}pairs = [{listed}]"
    yield ""
    profile = typed.get("profile")
    yield "# quick: at most 8 chunks, a first look; pr: 32; nightly: 128, then decided by the mean."
    yield f"{'' if profile else '# '}profile = {_quoted(profile or 'pr')}"
    yield "# Tokens per chunk. A longer context shows what a longer context breaks."
    yield "# ctx = 512"
    yield "# Depths to time at, in tokens."
    yield "# depths = [0, 8192]"
    yield ""
    yield "# The most that a pair may change, by pattern; later ones overlay earlier ones."
    yield "# kvquant calibrate measures and writes these; without any, a pair is held against"
    yield "# what its types must cost on your model."
    yield '# [budgets."*/q4_0"]'
    yield "# kl_mean = 0.03          # nats"
    yield "# top1_flips = 0.08       # share of tokens"
    yield ""
    yield "# Least share of f16's tok/s, by pattern and depth."
    yield "# [floors]"
    yield '# "*/q4_0 @ d8192" = { pp = 0.6, tg = 0.8 }'
    yield ""
    yield "# The only LLAMA_*, GGML_*, TURBO_* variables that a worker sees."
    yield "# [environment]"


FEW = "q8_0/q8_0,q8_0/q4_0"
"""Pairs of an example."""

LOOKED_AT = {"model": "model", "lib": "library", "python": "bindings", "corpus": "corpus"}
"""The doctor's finding about each setting."""

EXAMPLES = {
    "model": "model.gguf",
    "lib": "build/bin",
    "python": ".venv/bin/python",
    "corpus": "wiki.test.raw",
}


def _types(report: Report) -> Iterator[str]:
    known = report.types
    new = [name for name in FORKS if name in known]
    usual = [name for name in USUAL if not known or name in known]
    chosen = [*usual[:2], *new] if new else usual
    yield "# Cache types; every ordered pair of them is measured."
    if known:
        yield f"# The library has: {', '.join(known)}."
    yield f"types = [{', '.join(map(_quoted, chosen))}]"


def _relative(path: Path, folder: Path) -> str:
    """As the file names it: links stay as they are (a model in a cache is one), and so does what is
    no path (a name that ``kvquant models`` lists)."""
    if not path.expanduser().exists() and len(path.parts) == 1:
        return str(path)
    whole, base = (one.expanduser().absolute() for one in (path, folder))
    return str(whole.relative_to(base)) if whole.is_relative_to(base) else str(whole)


def _here(text: str, folder: Path) -> str:
    """A finding with the paths of this file's folder and of the package cut short: the file is for
    a repository, whose other checkouts lie elsewhere."""
    for base in (folder.expanduser().absolute(), PACKAGE.parent):
        text = text.replace(f"{base}{os.sep}", "")
    return text


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
