"""Both sides of the line hold to one schema: the worker's dataclasses and what the parent reads."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import pkgutil
import socket
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from pytest_kvquant.engine import messages, protocol
from pytest_kvquant.engine.census_record import Cache, Census, CensusLayer
from pytest_kvquant.engine.child.main import Child
from pytest_kvquant.engine.messages.base import Said
from pytest_kvquant.engine.protocol import Channel

CENSUS = Census(
    (Cache("base", 1, 4, 12, 0, 0, 3, False, (CensusLayer("q8_0", None, 34, 0, 8, 0),)),), 0, 34.0
)


def every() -> list[type[Said]]:
    found = []
    for module in pkgutil.iter_modules(messages.__path__, f"{messages.__name__}."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, Said) and kind.NAME:
                found.append(kind)
    return sorted(set(found), key=lambda kind: kind.__name__)


def example(hint: object) -> object:
    """A value of a type, as the worker would send it."""
    plain = {int: 3, float: 0.5, str: "a", bool: True, object: "b", type(None): None,
             Census: CENSUS}  # fmt: skip
    if hint in plain:
        return plain[hint]  # type: ignore[index]
    if dataclasses.is_dataclass(hint):
        return made(typing.cast("type", hint))
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Mapping:
        return {"key": example(inside[1])}
    if origin is tuple:
        return tuple(map(example, inside))
    if origin is Sequence:
        return [example(inside[0])]
    return example(inside[0])  # a union


def made(kind: type) -> object:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: example(hints[name]) for name in names})


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), Channel(theirs)


def as_json(value: object) -> object:
    return json.loads(json.dumps(value, default=messages.base.plain))


@pytest.mark.parametrize("kind", every(), ids=lambda kind: kind.__name__)
def test_what_one_side_says_the_other_reads(
    kind: type[Said], ends: tuple[Channel, Channel]
) -> None:
    said = made(kind)
    assert isinstance(said, kind)
    ends[0].tell(said)
    message = ends[1].receive(5)
    assert message.name == kind.NAME
    for read in (message.read(kind), msgspec.convert(message.fields, kind)):
        assert as_json(read.fields) == as_json(said.fields)


@pytest.mark.parametrize("kind", every(), ids=lambda kind: kind.__name__)
def test_a_field_of_another_type_is_not_taken(kind: type[Said]) -> None:
    fields = typing.cast("dict[str, object]", as_json(made(kind)))
    for name, hint in typing.get_type_hints(kind).items():
        if name in fields and hint in (int, float, str, bool):
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert({**fields, name: [None]}, kind)


def test_a_name_means_one_message() -> None:
    names = [kind.NAME for kind in every()]
    assert len(names) == len(set(names))


def test_each_message_that_a_worker_takes_is_a_class() -> None:
    taken = {name.removeprefix("on_") for name in dir(Child) if name.startswith("on_")}
    assert taken <= {kind.NAME for kind in every()}


def test_nothing_is_said_that_is_no_message() -> None:
    """Neither side sends by name and fields, which nobody would hold to a schema."""
    engine = Path(protocol.__file__).parent
    for path in engine.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                assert not (node.func.attr == "send" and owner.endswith("channel")), path
