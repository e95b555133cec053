"""The schema speaks of every property: what it is, in which unit."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kvquant.results.schema import schema

SCHEMA: dict[str, Any] = schema()
PROPERTIES = {
    f"{record}.{name}": entry
    for record, definition in SCHEMA["$defs"].items()
    for name, entry in definition.get("properties", {}).items()
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_every_property_has_a_description(name: str) -> None:
    text = PROPERTIES[name].get("description", "")
    assert text, f"{name} has no docstring under its attribute"
