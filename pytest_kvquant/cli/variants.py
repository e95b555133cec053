"""``kvquant variants``: one build under several environments, their matrices compared pairwise.

Each is a run of its own, with a reference of its own: a variable may change f16 too, and then every
KL is measured against what that environment makes of f16.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.files import say
from pytest_kvquant.errors import SettingsError

if TYPE_CHECKING:
    from pytest_kvquant.results.result import Result

PLAIN = "plain"
"""The environment of the configuration, without any variant."""


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    parser = commands.add_parser(
        "variants",
        help="measure the matrix under each environment of [variants], and compare them",
        epilog="exit code: the worst of the runs. Options of pytest stand behind --.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the results are kept")
    parser.add_argument("--kv-config", metavar="PATH", help="configuration file")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="further options of pytest, behind --"
    )
    parser.set_defaults(run=_variants, measures=True)


def _variants(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.checks import registry
    from pytest_kvquant.config.resolver import find_root, resolve
    from pytest_kvquant.report.variants import lines
    from pytest_kvquant.results.file import read

    config = Path(parsed.kv_config) if parsed.kv_config else None
    settings = resolve(
        {}, config=config, root=find_root(Path.cwd()), budgets=registry.budget_units()
    )
    if not settings.variants:
        raise SettingsError("The configuration has no table [variants.NAME]: nothing to compare.")
    parsed.folder.mkdir(parents=True, exist_ok=True)
    given = ["--kv-config", str(config)] if config else []
    more = parsed.options[1:] if parsed.options[:1] == ["--"] else parsed.options
    results: dict[str, Result] = {}
    codes = []
    for name in (PLAIN, *settings.variants):
        path = parsed.folder / f"{name}.json"
        path.unlink(missing_ok=True)
        which = [] if name == PLAIN else ["--kv-variant", name]
        words = [*given, *which, "--kv-json", str(path), *more]
        print(f"kvquant variants: {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", "pytest", "--kv-matrix", *words], check=False)
        codes.append(done.returncode)
        if path.is_file():
            results[name] = read(path)
    say("\n".join(lines(results, settings.variants)) + "\n")
    return max(codes)
