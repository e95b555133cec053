"""A copy of a model with some weights changed: K or V of every token is wrong, in every path."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from gguf import GGUFReader

TENSORS = {"k_weights": "attn_k_norm", "v_weights": "attn_v", "v_sign": "attn_v"}


def plant(model: Path, path: Path, name: str, dose: float) -> None:
    """Write ``model`` with a fault to ``path``.

    Tensors of V are Q8_0: blocks of an f16 scale and 32 int8; a norm is float32.
    """
    shutil.copyfile(model, path)
    path.chmod(0o644)
    heads = kv_heads(model)
    for tensor in GGUFReader(path, "r+").tensors:
        part = tensor.name.split(".")
        if len(part) != 4 or part[2] != TENSORS[name]:
            continue
        if name == "v_sign" and int(part[1]) >= dose:
            continue
        if name == "k_weights":
            tensor.data[:] = tensor.data * np.float32(1 + dose)
            continue
        scales = tensor.data.reshape(tensor.data.shape[0], -1, 34)[:, :, :2]
        if name == "v_sign":
            scales[: len(scales) // heads, :, 1] ^= 0x80
        else:
            halves = np.ascontiguousarray(scales).view(np.float16) * np.float16(1 + dose)
            scales[:] = halves.view(np.uint8)


def kv_heads(model: Path) -> int:
    """KV heads per layer of a model."""
    reader = GGUFReader(model)
    architecture = reader.get_field("general.architecture")
    assert architecture is not None
    field = reader.get_field(f"{architecture.contents()}.attention.head_count_kv")
    assert field is not None
    return int(field.contents())
