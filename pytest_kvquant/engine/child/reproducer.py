"""Child side: inputs and outputs of one node in a file, and the node computed again from it.

The file is an ``npz`` of raw bytes: what the tensors held, their types by name, shapes and strides,
and the operation's parameters. It needs no model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import numpy as np

from pytest_kvquant.engine.child.finding import NodeFinding
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.numerics.arrays import U8


class TensorDescribed(TypedDict):
    """A tensor of a node: its type by name, its elements per dimension, innermost first."""

    type: str
    ne: list[int]
    name: str


class NodeDescribed(TensorDescribed):
    """The node itself, and where it was met."""

    format: str
    operation: str
    parameters: list[int]
    """As int32, whatever the operation takes them for."""
    sources: list[TensorDescribed | None]
    text: str
    """What was found about it."""
    layer: int
    backend: str
    build: str
    cache_types: list[str]
    """Of K and V; a rotation before quantization is theirs."""


FORMAT = "pytest-kvquant node 2"


def save(
    node: Node,
    values: Values,
    found: NodeFinding,
    path: Path,
    build: str,
    cache_types: tuple[str, str],
) -> str:
    """Write a node as it was computed; the path."""
    arrays: dict[str, U8] = {"out": _packed(node, values)}
    sources: list[TensorDescribed | None] = []
    for number in range(5):
        source = node.source(number)
        if source is None:
            sources.append(None)
            continue
        arrays[f"source{number}"] = _packed(source, values)
        sources.append({"type": source.type, "ne": list(source.ne), "name": source.name})
    about: NodeDescribed = {
        "format": FORMAT,
        "operation": node.op,
        "name": node.name,
        "type": node.type,
        "ne": list(node.ne),
        "parameters": node.integers.tolist(),
        "sources": sources,
        "text": found.text,
        "layer": found.layer,
        "backend": node.backend,
        "build": build,
        "cache_types": list(cache_types),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    header = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez_compressed(path, about=header, **arrays)  # type: ignore[arg-type]
    return str(path)


def load(path: Path) -> tuple[NodeDescribed, dict[str, U8]]:
    """What a file holds: its description, and the bytes of each tensor.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(bytes(arrays.pop("about")))
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a node that pytest-kvquant wrote ({error})") from None
    if about.get("format") != FORMAT:
        raise ValueError(f"{path} is a node of another format ({about.get('format')})")
    return about, arrays


def _packed(node: Node, values: Values) -> U8:
    """Its rows without gaps, outermost dimension first."""
    planes = [
        values.plane(node, two, three).reshape(-1)
        for three in range(node.ne[3])
        for two in range(node.ne[2])
    ]
    return np.concatenate(planes) if planes else np.empty(0, np.uint8)
