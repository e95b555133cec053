"""``kvquant doctor``: what a run would use, and what is wrong with it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.completion import complete
from pytest_kvquant.config.options import FLAG, GROUPS, OPTIONS, group_of
from pytest_kvquant.machine.escape import paragraph


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
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
    doctor.set_defaults(run=_doctor, measures=True)


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

    from pytest_kvquant.cli.doctor_examine import examine
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
