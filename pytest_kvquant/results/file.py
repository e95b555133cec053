"""A result as JSON: written and read."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pytest_kvquant.errors import ResultError
from pytest_kvquant.results.result import SCHEMA, Result
from pytest_kvquant.results.upgrade import upgrade


def encode(result: Result) -> bytes:
    """The result as indented JSON (non-finite numbers as null)."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


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
        return msgspec.convert(table, Result)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError(f"{name} is not a result of pytest-kvquant: {error}.") from None


def read(path: Path) -> Result:
    """Read a file that ``--kv-json`` wrote.

    Raises:
        ResultError: no such file, or not a result.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}.") from None
    return decode(data, str(path))
