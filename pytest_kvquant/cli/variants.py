"""``kvquant variants``: one build under several environments, their matrices compared pairwise.

Each is a run of its own, with a reference of its own: a variable may change f16 too, and then every
KL is measured against what that environment makes of f16.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvquant.cli.files import say
from pytest_kvquant.errors import SettingsError

if TYPE_CHECKING:
    from pytest_kvquant.results.result import Result

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

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
    parser.set_defaults(run=_variants)


def _variants(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.checks import registry
    from pytest_kvquant.config.resolver import find_root, resolve
    from pytest_kvquant.results.file import read

    config = Path(parsed.kv_config) if parsed.kv_config else None
    settings = resolve(
        {}, config=config, root=find_root(Path.cwd()), more_budgets=registry.default_budgets()
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


def lines(
    results: Mapping[str, Result], variants: Mapping[str, Mapping[str, str]]
) -> Sequence[str]:
    """What each variant costs or gains beside each other one, a line a pair that moved."""
    from pytest_kvquant import format
    from pytest_kvquant.report.matrix_rows import rows

    found: list[str] = []
    seen = {name: {row.pair: row for row in rows(result)} for name, result in results.items()}
    for one, other in itertools.combinations(seen, 2):
        what = ", ".join(f"{name}={value}" for name, value in variants.get(other, {}).items())
        found += ["", f"{one} → {other} ({what})"]
        same = []
        for pair, before in seen[one].items():
            after = seen[other].get(pair)
            moved = []
            if after is None:
                found.append(f"  {pair}: not measured under {other}")
                continue
            if before.verdict != after.verdict:
                moved.append(f"{before.verdict} → {after.verdict}")
            if before.kl is not None and after.kl is not None and before.kl != after.kl:
                moved.append(
                    f"KL {format.kl(before.kl)} → {format.kl(after.kl)} "
                    f"({after.kl - before.kl:+.2g} nats)"
                )
            if before.tg_ratio and after.tg_ratio:
                moved.append(
                    f"tg {format.factor(before.tg_ratio)} → {format.factor(after.tg_ratio)} × f16"
                )
            if moved:
                found.append(f"  {pair}: {', '.join(moved)}")
            else:
                same.append(pair)
        if same:
            found.append(f"  as before, to the last digit: {', '.join(same)}")
    return found
