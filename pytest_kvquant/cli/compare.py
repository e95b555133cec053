"""``kvquant compare``, and ``diff``: two results beside each other."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.files import say, write

COMPARE_CODES = """\
exit code: 0 no cell got worse; 1 a cell got worse or vanished: it passed and does not any more, or
its KL, its perplexity or its top-1 agreement moved away from f16 by more than tolerance and chance,
or its KL fell to the noise floor, as if quantization were off; 2 conditions differ (machine,
batches, threads, variables; --across allows it), or the files cannot be read or compared: each
condition that differs is named."""


def add(commands: Commands) -> None:
    """Add the commands to those of ``kvquant``."""
    _add(commands, "compare", "compare two results on the same tokens")
    _add(commands, "diff", "the same; --html writes both side by side")


def _add(commands: Commands, name: str, what: str) -> None:
    compare = commands.add_parser(
        name,
        help=what,
        epilog=COMPARE_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("before", type=Path, help="result that was accepted, from --kv-json")
    compare.add_argument("after", type=Path, help="result to judge")
    compare.add_argument("--markdown", action="store_true", help="print markdown, not a table")
    compare.add_argument(
        "--across", action="store_true", help="judge although machine, batches or variables differ"
    )
    compare.add_argument("--html", type=Path, metavar="PATH", help="write both side by side")
    compare.set_defaults(run=_compare)


def _compare(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.cli.drawing import screen_width
    from pytest_kvquant.report.compare import as_markdown, as_text, compare
    from pytest_kvquant.results.file import read

    before, after = read(parsed.before), read(parsed.after)
    found = msgspec.structs.replace(compare(before, after), across=parsed.across)
    if parsed.html is not None:
        from pytest_kvquant.report.diff import render

        write(parsed.html, render(found, before, after).encode())
    say(as_markdown(found) if parsed.markdown else as_text(found, width=screen_width()))
    if not found.judged:
        differing = "; ".join(found.conditions)
        print(
            f"kvquant {parsed.command}: conditions differ ({differing}): nothing is judged. "
            "--across judges all the same.",
            file=sys.stderr,
        )
        return 2
    return 1 if found.worse else 0
