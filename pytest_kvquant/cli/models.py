"""``kvquant models``: GGUF models that are already on this machine, with their geometry."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TypedDict, final

from pytest_kvquant.cli.commands import Commands


@final
class ModelRead(TypedDict):
    """A model that can be measured with."""

    name: str
    path: str
    architecture: str
    size: int
    layers: int
    cached_layers: int
    heads: int
    kv_heads: int
    head_k: int
    head_v: int
    context: int
    bytes_per_token: int


@final
class ModelRefused(TypedDict):
    """One that cannot, and why."""

    name: str
    path: str
    problem: str


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "models", help="list GGUF models that other programs have put on this machine"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """List them; nothing is downloaded."""
    import os

    from pytest_kvquant.inputs.found_models import found_models

    rows = [described(one.name, one.path) for one in found_models(os.environ, Path.home())]
    if parsed.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(
            "No GGUF models in the caches of Hugging Face, llama.cpp, LM Studio and Ollama; "
            "--kv-model takes any file, folder or pattern."
        )
    else:
        print("\n".join(line(row) for row in rows))
    return 0


def described(name: str, path: Path) -> ModelRead | ModelRefused:
    """One model: its name for ``--kv-model``, its geometry, or why it cannot be measured with."""
    from pytest_kvquant.errors import ModelError
    from pytest_kvquant.inputs.geometry import F16, expect
    from pytest_kvquant.inputs.model import read_model
    from pytest_kvquant.matrix import REFERENCE

    try:
        model = read_model(path, hashed=False)
    except ModelError as error:
        return {"name": name, "path": str(path), "problem": str(error)}
    layers = [layer for shape in model.caches for layer in shape.layers]
    return {
        "name": name,
        "path": str(path),
        "architecture": model.architecture,
        "size": model.size,
        "layers": model.n_layer,
        "cached_layers": len({layer.number for layer in layers}),
        "heads": model.n_head,
        "kv_heads": max((layer.heads for layer in layers), default=0),
        "head_k": max((layer.dim_k for layer in layers), default=0),
        "head_v": max((layer.dim_v for layer in layers), default=0),
        "context": model.context_trained,
        "bytes_per_token": expect(model, REFERENCE, F16).bytes_per_token,
    }


def line(row: ModelRead | ModelRefused) -> str:
    """A row for people."""
    if "problem" in row:
        return f"✗ {row['name']}\n    {row['problem']}"
    dims = f"{row['head_k']}" + (f"/{row['head_v']}" if row["head_v"] != row["head_k"] else "")
    return (
        f"✓ {row['name']}\n    {row['architecture']}, {row['size'] / 1e9:.2f} GB, "
        f"{row['cached_layers']} of {row['layers']} layers with a cache, {row['heads']} query and "
        f"{row['kv_heads']} KV heads of {dims}, {row['bytes_per_token']:,} bytes a token in f16, "
        f"trained on {row['context']:,} tokens"
    )
