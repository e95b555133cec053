"""``kvquant schema``: the JSON schema of a result."""

from __future__ import annotations

import argparse

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.files import say


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    schema = commands.add_parser("schema", help="print the JSON schema of a result")
    schema.set_defaults(run=_schema)


def _schema(_: argparse.Namespace) -> int:
    from pytest_kvquant.results.schema import schema_text

    say(schema_text())
    return 0
