"""Control vectors: GGUF files with a direction for each layer, as the worker reads them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from pytest_kvquant.errors import ModelError
from pytest_kvquant.machine.files import replace


def write_array(path: Path, out: Path) -> None:
    """Write the directions of a control vector as a NumPy array, shape ``(layers, width)``.

    Row 0 is of layer 1, as llama.cpp counts; a layer without a direction has zeros.

    Raises:
        ModelError: not such a file.
    """
    from gguf import GGUFReader

    try:
        tensors = GGUFReader(path).tensors
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelError(f"The control vector {path} cannot be read: {error}.") from None
    rows = {
        int(one.name.rpartition(".")[2]): np.asarray(one.data, np.float32).ravel()
        for one in tensors
        if one.name.startswith("direction.")
    }
    if not rows or min(rows) < 1 or len({len(row) for row in rows.values()}) > 1:
        raise ModelError(f"{path} is no control vector: it has no 'direction.N' for layers from 1.")
    width = len(next(iter(rows.values())))
    array = np.zeros((max(rows), width), np.float32)
    for layer, row in rows.items():
        array[layer - 1] = row
    buffer = io.BytesIO()
    np.save(buffer, array)
    try:
        replace(out, buffer.getvalue())  # whole or not at all: what is there is taken for whole
    except OSError as error:
        raise ModelError(f"{out} cannot be written: {error.strerror}; free space there.") from None
