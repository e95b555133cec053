"""``kvquant schema``: the JSON schema of a result."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pytest_kvquant.cli.files import say

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    schema = commands.add_parser("schema", help="print the JSON schema of a result")
    schema.set_defaults(run=_schema)


def _schema(_: argparse.Namespace) -> int:
    from pytest_kvquant.results.schema import schema_text

    say(schema_text())
    return 0
