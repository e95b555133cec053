"""Which layers turn queries and keys, and what is said where a graph does otherwise."""

from __future__ import annotations

from itertools import count
from typing import Any, cast

import pytest

from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.turned import wrongly_turned
from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.inputs.turned import turned

NUMBERS = count(1)


def layers(architecture: str, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A letter a layer: r for a rope, - for none."""
    told: dict[str, Any] = {
        "path": "m.gguf", "name": "m", "architecture": architecture, "fingerprint": "", "size": 0,
        "context_trained": 4096, "n_layer": 8, "n_embd": 128, "n_head": 2,
        "n_head_kv": (2,) * 8, "head_dim_k": 64, "head_dim_v": 64, "causal": True,
    }  # fmt: skip
    fields = {f"{architecture}.{key}": value for key, value in (header or {}).items()}
    found = turned(Model(**(told | changes)), Fields(fields, architecture))
    return "unknown" if found is None else "".join("r" if one else "-" for one in found)


WINDOWED = {"window": 16, "windowed": (True, True, True, False) * 2}


@pytest.mark.parametrize(
    ("architecture", "header", "changes", "meant"),
    [
        ("llama", {}, {}, "rrrrrrrr"),
        ("bloom", {}, {}, "--------"),
        ("gpt2", {}, {}, "--------"),
        ("baichuan", {}, {}, "--------"),
        ("baichuan", {}, {"n_layer": 32, "n_head_kv": (2,) * 32}, "r" * 32),
        ("baichuan", {}, {"n_layer": 40, "n_head_kv": (2,) * 40}, "-" * 40),
        ("smollm3", {}, {}, "rrr-rrr-"),
        ("afmoe", {}, WINDOWED, "rrr-rrr-"),
        ("llama4", {}, WINDOWED, "rrr-rrr-"),
        ("llama4", {}, {}, "rrrrrrr-"),
        ("smallthinker", {}, WINDOWED, "-rrr-rrr"),
        ("smallthinker", {}, {}, "rrrrrrrr"),
        ("cohere2", {}, WINDOWED, "rrr-rrr-"),
        ("exaone4", {}, WINDOWED, "rrr-rrr-"),
        ("maple", {}, WINDOWED, "rrr-rrr-"),
        ("exaone4", {}, {}, "rrrrrrrr"),
        ("exaone4", {}, {"window": 16, "windowed": None}, "unknown"),
        ("granite", {}, {}, "rrrrrrrr"),
        ("granitehybrid", {"rope.scaling.finetuned": False}, {}, "--------"),
        ("granite_swa", {}, {}, "unknown"),
    ],
)
def test_layers_by_architecture(
    architecture: str, header: dict[str, Any], changes: dict[str, Any], meant: str
) -> None:
    assert layers(architecture, header, **changes) == meant


class Made:
    """A node of a graph, as far as its way matters."""

    def __init__(self, op: str, *sources: Made, name: str = "") -> None:
        self.op, self.name, self.address = op, name, next(NUMBERS)
        self.sources, self.root, self.original = sources, self, self

    def source(self, number: int) -> Made:
        return self.sources[number]


def projected(before: Made) -> Made:
    return Made("MUL_MAT", Made("NONE", name="blk.1.attn_k.weight"), before)


EARLIER = Made("FLASH_ATTN_EXT", Made("ROPE", Made("NONE")))


def write_of(ropes: int, *, beside: bool = False) -> Node:
    """A write of keys that come through so many ropes, from a layer before."""
    way = Made("ADD", projected(EARLIER), EARLIER) if beside else projected(Made("ROPE", EARLIER))
    for _ in range(ropes):
        way = Made("ROPE", way, Made("NONE"))
    return cast("Node", Made("SET_ROWS", Made("RESHAPE", way)))


@pytest.mark.parametrize("beside", [False, True])
def test_a_rope_too_few_and_one_too_many(beside: bool) -> None:
    facts = Facts(turned=(True, False))
    said = [wrongly_turned(write_of(n, beside=beside), facts, 0, "keys") for n in range(3)]
    assert "keys of layer 0 come through no rope, and the model's architecture turns" in said[0]
    assert said[1] == ""
    assert "through 2 ropes" in said[2]
    assert not wrongly_turned(write_of(0), facts, 1, "keys")
    assert "turns them nowhere" in wrongly_turned(write_of(1), facts, 1, "keys")


def test_what_is_not_known_is_not_judged() -> None:
    assert not wrongly_turned(write_of(0), Facts(), 0, "keys")
    assert not wrongly_turned(write_of(0), Facts(turned=(True,)), 1, "keys")


def test_an_operation_that_nobody_knows_may_be_a_rope() -> None:
    way = Made("SPIN", projected(EARLIER))
    write = cast("Node", Made("SET_ROWS", Made("RESHAPE", way)))
    assert not wrongly_turned(write, Facts(turned=(True,)), 0, "keys")
