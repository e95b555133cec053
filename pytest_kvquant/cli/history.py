"""``kvquant history``: the trend over results, or over baselines in git."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.files import refuse_inputs, say, write
from pytest_kvquant.machine.escape import one_line, paragraph

METRICS = ("kl", "top1", "ppl_delta", "tg_ratio", "memory", "tg", "pp")


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    history = commands.add_parser(
        "history",
        help="trend over results, baselines in git, or an artifacts folder",
        description="Results (*.json that --kv-json wrote), what kvquant import made of other "
        "tools' files, and zips of either (artifacts as a CI hands them out), in a folder and its "
        "sub-folders; with --git the baselines under a folder, commit by commit.",
    )
    history.add_argument("folder", type=Path, help="folder with results or baselines")
    history.add_argument("--git", action="store_true", help="baselines there, by commit")
    history.add_argument("--metric", choices=METRICS, default="kl", help="figure (default: kl)")
    history.add_argument("--html", type=Path, metavar="PATH", help="write a page with plots")
    history.set_defaults(run=_history)


def _history(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.cli.drawing import screen_width
    from pytest_kvquant.report import history

    if parsed.git:
        from pytest_kvquant.cli.git_history import points_of_git

        points, skipped = points_of_git(parsed.folder)
    else:
        points, skipped = history.load(parsed.folder)
    for line in skipped:
        print(one_line(f"kvquant history: {line}"), file=sys.stderr)
    found = history.series(points)
    if parsed.html is not None:
        refuse_inputs(parsed.html, parsed.folder.rglob("*.json"))
        write(parsed.html, history.render(found).encode())
    say(paragraph(history.as_text(found, parsed.metric, width=screen_width())))
    return 0
