"""The JSON schema of a result: shapes from the records, words from their attributes' docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import get_args

import msgspec

from pytest_kvquant.numerics.plain import Json
from pytest_kvquant.results import nonfinite
from pytest_kvquant.results.result import Result


def schema() -> Json:
    """The schema as plain data; every property has a description."""
    found = msgspec.json.schema(Result)
    for record in records(Result):
        properties = found["$defs"][record.__name__]["properties"]
        for name, text in descriptions(record).items():
            # A reference allows no neighbours in older drafts, so it stands in a list of one.
            entry = properties[name]
            if "$ref" in entry:
                entry = {"allOf": [entry]}
            properties[name] = {**entry, "description": text}
    return nonfinite.allow(found)


def schema_text() -> str:
    """The schema as ``docs/result.schema.json`` holds it."""
    text = msgspec.json.encode(schema(), order="deterministic")
    return msgspec.json.format(text).decode() + "\n"


def records(root: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """A record and all records that it holds, each once."""
    seen: dict[type[msgspec.Struct], None] = {}
    waiting = [root]
    while waiting:
        if (record := waiting.pop()) in seen:
            continue
        seen[record] = None
        for field in msgspec.structs.fields(record):
            waiting += _structs(field.type)
    return list(seen)


def descriptions(record: type[msgspec.Struct]) -> dict[str, str]:
    """The docstrings under a record's attributes, by name; those of its bases too."""
    found: dict[str, str] = {}
    for owner in reversed(record.__mro__):
        if owner is not msgspec.Struct and issubclass(owner, msgspec.Struct):
            found |= _own_descriptions(owner)
    return {name: found[name] for name in record.__struct_fields__ if name in found}


def _own_descriptions(record: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(record))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[statement.target.id] = inspect.cleandoc(str(following.value.value))
    return {name: " ".join(text.split()) for name, text in found.items()}


def _structs(kind: object) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for part in get_args(kind):
        yield from _structs(part)
