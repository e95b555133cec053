"""An encoder of sequence states, written from llama.cpp's ``state_write``, not from our reader."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

MAGIC = 0xAF143CD8
TYPES = {
    "f32": {"id": 0, "block": 1, "bytes": 4},
    "f16": {"id": 1, "block": 1, "bytes": 2},
    "q4_0": {"id": 2, "block": 32, "bytes": 18},
    "q8_0": {"id": 8, "block": 32, "bytes": 34},
}


class Side(NamedTuple):
    """K or V of one layer: a type and the elements per cell."""

    type: str
    elements: int

    @property
    def row(self) -> int:
        entry = TYPES[self.type]
        return self.elements // entry["block"] * entry["bytes"]


def prefix(sequence: int = 0) -> bytes:
    return struct.pack("<Ii", MAGIC, sequence)


def attention(
    layers: Sequence[tuple[Side, Side | None]],
    cells: int,
    *,
    streams: int = 1,
    stream: int = 0,
    extra: int = 0,
    transposed: bool = False,
    first: int = 0,
    sequence: int = 0,
    fill: int = 7,
) -> bytes:
    """One cache; the sequence lies in ``stream``, its cells hold positions from ``first`` on."""
    parts = [struct.pack("<I", streams)]
    for number in range(streams):
        held = cells if number == stream else 0
        parts.append(struct.pack("<I", held))
        if not held:
            continue
        parts += [
            struct.pack("<iI", first + cell, 1)
            + struct.pack("<iii", first + cell, first + cell, 5)[:extra]
            + struct.pack("<i", sequence)
            for cell in range(held)
        ]
        parts.append(struct.pack("<II", transposed, len(layers)))
        for key, _ in layers:
            parts.append(struct.pack("<iQ", TYPES[key.type]["id"], key.row))
            parts.append(bytes([fill]) * (key.row * held))
        for _, value in layers:
            if value is None:
                continue
            size = TYPES[value.type]["bytes"]
            number_of = (
                struct.pack("<II", size, value.elements)
                if transposed
                else struct.pack("<Q", value.row)
            )
            parts.append(struct.pack("<i", TYPES[value.type]["id"]) + number_of)
            parts.append(bytes([fill]) * (value.row * held))
    return b"".join(parts)


def recurrent(layers: int, *, of: int, r_row: int = 64, s_row: int = 0, position: int = 9) -> bytes:
    """One recurrent state: ``layers`` of the model's ``of`` layers have one."""
    parts = [struct.pack("<IiIII", 1, position, 0, 0, of)]
    for row in (r_row, s_row):
        parts += [struct.pack("<iQ", 0, row) + bytes([3]) * row] * layers
    return b"".join(parts)
