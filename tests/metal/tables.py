"""What Metal backends can run, as read from their ``ggml_metal_device_supports_op``.

``test_tables.py`` reads the sources again, where there are any, and compares.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEADS = (32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576)
"""Head sizes with a FLASH_ATTN_EXT, in both."""

TURBO = ("turbo2", "turbo3", "turbo4")


class Table(NamedTuple):
    """What one Metal backend says yes to."""

    attention: frozenset[tuple[str, str]]
    """K and V types of FLASH_ATTN_EXT."""
    writes: frozenset[str]
    """Types that SET_ROWS writes from f32."""
    heads: frozenset[int]

    def variables(self) -> dict[str, str]:
        """For the simulated backend."""
        return {
            "SIM_METAL_FA": " ".join(f"{k}/{v}" for k, v in sorted(self.attention)),
            "SIM_METAL_SET_ROWS": " ".join(sorted(self.writes)),
            "SIM_METAL_HEADS": " ".join(map(str, sorted(self.heads))),
        }


_ALIKE = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1")
_WRITES = (*_ALIKE, "iq4_nl")

STOCK = Table(
    attention=frozenset((name, name) for name in _ALIKE),
    writes=frozenset((*_WRITES, "tq2_0")),
    heads=frozenset(HEADS),
)
"""llama.cpp as llama-cpp-python 0.3.36 carries it."""

FORK = Table(
    attention=STOCK.attention
    | {(k, v) for k in TURBO for v in TURBO}
    | {("q8_0", v) for v in TURBO}
    | {(k, "q8_0") for k in TURBO},
    writes=frozenset((*_WRITES, *TURBO)),
    heads=frozenset(HEADS),
)
"""The TurboQuant fork of May 2026."""


def from_source(text: str) -> Table:
    """The table that a ``ggml-metal-device.m`` holds; bfloat is taken to be there.

    Raises:
        ValueError: it is not written in the way that is understood here.
    """
    body = text[text.index("bool ggml_metal_device_supports_op") :]
    attention = _case(body, "FLASH_ATTN_EXT")
    alike = _types(attention[attention.index("switch (op->src[1]->type)") :])
    mixed = set()
    if "k_is_turbo" in attention:
        turbo = _types(attention[: attention.index("v_is_turbo")])
        rules = re.findall(r"\((k_is_\w+) && (v_is_\w+)\)", attention)
        groups = {"turbo": turbo, "q8": {"q8_0"}}
        for k, v in rules:
            mixed |= {(a, b) for a in groups[k[5:]] for b in groups[v[5:]]}
    elif "src[1]->type != op->src[2]->type" not in attention:
        raise ValueError("the condition on unlike types is not found")
    writes = _case(body, "SET_ROWS")
    return Table(
        attention=frozenset({(name, name) for name in alike} | mixed),
        writes=frozenset(_types(writes[writes.index("switch (op->type)") :])),
        heads=frozenset(map(int, re.findall(r"src\[0\]->ne\[0\] != (\d+)", attention))),
    )


def _case(body: str, operation: str) -> str:
    start = body.index(f"case GGML_OP_{operation}:")
    end = re.compile(r"\n        (?:case GGML_OP_|default:)").search(body, start + 10)
    return body[start : end.start() if end else None]


def _types(text: str) -> set[str]:
    """ggml names: ``GGML_TYPE_Q8_0`` is ``q8_0``, ``GGML_TYPE_TURBO2_0`` is ``turbo2``."""
    words = {word.lower() for word in re.findall(r"GGML_TYPE_(\w+)", text)}
    return {re.sub(r"^(turbo\d)_0$", r"\1", word) for word in words}
