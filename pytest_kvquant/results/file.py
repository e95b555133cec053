"""A result as JSON: written and read."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pytest_kvquant.errors import ResultError
from pytest_kvquant.results import nonfinite
from pytest_kvquant.results.result import SCHEMA, Result
from pytest_kvquant.results.upgrade import upgrade

BASELINE = "pytest-kvquant-baseline/"
"""How the schema of an accepted baseline begins."""


def encode(result: Result) -> bytes:
    """The result as indented JSON; see :mod:`pytest_kvquant.results.nonfinite`."""
    return msgspec.json.format(nonfinite.encode(result), indent=2) + b"\n"


def decode(data: bytes, name: str) -> Result:
    """Read what :func:`encode` wrote.

    Args:
        name: what to call the data in a complaint.

    Raises:
        ResultError: not a result, or of a later schema; earlier ones are upgraded.
    """
    try:
        table = msgspec.json.decode(data)
        if not isinstance(table, dict):
            raise ResultError(f"{name} is not a result of pytest-kvquant: it holds no object.")
        table = upgrade(table)
        if str(table.get("schema", SCHEMA)) != SCHEMA:
            raise ResultError(
                f"{name} is of schema '{table['schema']}'; this version reads '{SCHEMA}'."
            )
        return nonfinite.convert(table, Result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultError(f"{name} is not a result of pytest-kvquant: {error}.") from None


class _Named(msgspec.Struct):
    schema: str = ""


def is_baseline(data: bytes) -> bool:
    """Whether JSON is an accepted baseline, of whatever version."""
    try:
        return msgspec.json.decode(data, type=_Named).schema.startswith(BASELINE)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def read(path: Path) -> Result:
    """Read a file that ``--kv-json`` wrote.

    Raises:
        ResultError: no such file, or not a result.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
            kind = "a folder" if path.is_dir() else "no regular file"
            raise ResultError(f"{path} is {kind}; give a file that --kv-json wrote.")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ResultError(f"{path} cannot be read: {reason}.") from None
    return decode(data, str(path))
