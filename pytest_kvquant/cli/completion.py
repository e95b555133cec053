"""``kvquant --print-completion bash|zsh|tcsh``: completion of commands, options and their values.

Made by shtab, which is looked for only when it is asked for
(``pip install 'pytest-kvquant[completion]'``).
"""

from __future__ import annotations

import argparse
import sys

from pytest_kvquant.config.options import Option

SHELLS = ("bash", "zsh", "tcsh")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the option that prints a completion script."""
    parser.add_argument(
        "--print-completion", choices=SHELLS, action=_Print,
        help="print a completion script; needs the extra [completion]",
    )  # fmt: skip


def complete(action: argparse.Action, option: Option) -> None:
    """Say of an option that takes a path that it does, so that a shell completes files."""
    if option.metavar in ("PATH", "DIR"):
        kind = "directory" if option.metavar == "DIR" else "file"
        action.complete = COMPLETE[kind]  # type: ignore[attr-defined]


COMPLETE = {
    "file": {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"},
    "directory": {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"},
}
"""shtab's own words for what a shell completes there."""


class _Print(argparse.Action):
    """Prints the script and ends."""

    def __call__(
        self, parser: argparse.ArgumentParser, _: object, values: object, *rest: object
    ) -> None:
        del rest
        try:
            import shtab
        except ImportError:
            parser.exit(
                2,
                "kvquant: --print-completion needs shtab, which is not installed: "
                "pip install 'pytest-kvquant[completion]'.\n",
            )
        sys.stdout.write(shtab.complete(parser, str(values)))
        parser.exit(0)
