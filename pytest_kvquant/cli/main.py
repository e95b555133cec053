"""The console script ``kvquant``; ``python -m pytest_kvquant`` is the same.

A command is a file of this folder with a function ``add(commands)``, which declares its arguments
and the function that runs it: that takes the parsed arguments and returns the exit code. What it
needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_kvquant import cli
from pytest_kvquant.cli.completion import add_completion, complete
from pytest_kvquant.cli.versions import Versions
from pytest_kvquant.config.options import FLAG, GROUPS, OPTIONS, group_of
from pytest_kvquant.errors import KVQuantError
from pytest_kvquant.machine.escape import one_line, paragraph


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code, or 2 with one line for what cannot work."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except KVQuantError as error:
        print(one_line(f"kvquant {parsed.command}: {error}"), file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kvquant", description="The commands of pytest-kvquant.")
    parser.add_argument("--version", action=Versions, help="plugin, bindings, library")
    add_completion(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser(
        "doctor", help="say what a run would use, and what is wrong with it"
    )
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.add_argument(
        "--kernels",
        action="store_true",
        help="load the weights onto the GPU and try each pair's kernels (on Apple's: always)",
    )
    doctor.add_argument(
        "-n", "--numprocesses", type=int, default=0, metavar="N", help="as for pytest-xdist"
    )
    doctor.add_argument("--fix", action="store_true", help="propose commands for what is wrong")
    _add_run_options(doctor)
    doctor.set_defaults(run=_doctor)
    replay = commands.add_parser(
        "replay",
        help="judge what --kv-evidence kept, under other budgets or rules, without a model",
    )
    replay.add_argument("folder", type=Path, metavar="DIR", help="folder with the evidence")
    replay.add_argument(
        "--kv-config", metavar="PATH", help="budgets of this file over the defaults"
    )
    rules = replay.add_mutually_exclusive_group()
    rules.add_argument("--kv-profile", metavar="NAME", help="rules of this profile")
    rules.add_argument("--kv-chunks", metavar="N", help="judged once, after N chunks")
    replay.set_defaults(run=_replay)
    for found in sorted(pkgutil.iter_modules(cli.__path__), key=lambda found: found.name):
        add = getattr(importlib.import_module(f"{cli.__name__}.{found.name}"), "add", None)
        if add is not None:
            add(commands)
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    """The plugin's own options, so that a command line can be taken over as it is."""
    parser.add_argument("--kv-config", metavar="PATH", help="configuration file (kvquant.toml)")
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for option in OPTIONS:
        group = groups[group_of(option)]
        if option.kind == FLAG:
            group.add_argument(
                option.flag, dest=option.dest, action="store_const", const="on", help=option.help
            )
            continue
        added = group.add_argument(
            option.flag,
            dest=option.dest,
            metavar=option.takes,
            choices=option.choices or None,
            help=option.help,
        )
        complete(added, option)


def _doctor(parsed: argparse.Namespace) -> int:
    import os

    from pytest_kvquant.cli.doctor import examine
    from pytest_kvquant.cli.doctor_report import as_json, as_text
    from pytest_kvquant.config.resolver import find_root

    typed = {option.field: getattr(parsed, option.dest) for option in OPTIONS}
    config = Path(parsed.kv_config) if parsed.kv_config else None
    report = examine(
        typed,
        config=config,
        root=find_root(Path.cwd()),
        shell=dict(os.environ),
        kernels=parsed.kernels,
        processes=parsed.numprocesses,
    )
    print(as_json(report) if parsed.json else paragraph(as_text(report)))
    if parsed.fix:
        from pytest_kvquant.cli import fixes

        print("\n" + fixes.as_text(fixes.proposals(report, dict(os.environ))), end="")
    return 0 if report.healthy else 1


def _replay(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.checks import registry
    from pytest_kvquant.config.budgets import BatchedBudgets, resolve_budgets
    from pytest_kvquant.config.resolver import find_root, resolve
    from pytest_kvquant.matrix import Pair
    from pytest_kvquant.numerics.rules import Rules
    from pytest_kvquant.quality.evidence_file import EvidenceConditions
    from pytest_kvquant.session.replay import as_text, fails, replay
    from pytest_kvquant.session.task_plan import PROFILES

    typed = {"profile": parsed.kv_profile, "chunks": parsed.kv_chunks}
    config = Path(parsed.kv_config) if parsed.kv_config else None
    settings = resolve(
        typed, config=config, root=find_root(Path.cwd()), more_budgets=registry.default_budgets()
    )
    rules = None
    if parsed.kv_chunks:
        assert settings.chunks is not None
        rules = Rules(cap=settings.chunks, early=False)
    elif parsed.kv_profile:
        rules = PROFILES[settings.profile]

    def budgets(conditions: EvidenceConditions) -> BatchedBudgets:
        if config is None:
            return conditions.budgets
        pair = Pair.parse(conditions.pair)
        found = resolve_budgets(
            pair,
            embedded=conditions.embedded,
            overrides=settings.budgets,
            defaults=registry.default_budgets(),
        )
        return found.batched

    judged = replay(parsed.folder, rules=rules, budgets=budgets)
    print(paragraph(as_text(judged)))
    return 1 if fails(judged) else 0
