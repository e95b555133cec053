"""Bytes per token of real caches equal geometry to the byte; what takes more fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import run
from support.tinygguf import Tiny, write

from pytest_kvquant.matrix import Pair
from pytest_kvquant.memory_verdicts import CellMemory
from pytest_kvquant.session import Session
from pytest_kvquant.settings import FloorOverride

ROW = {"f16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q4_0": 18 / 32}
"""Bytes per element."""
SHAPES = {
    "head dimension 64": Tiny(n_layer=2, n_head=4, n_head_kv=2, head_dim=64),
    "head dimension 128": Tiny(n_layer=2, n_head=4, n_head_kv=2, head_dim=128),
    "8:1 grouping": Tiny(n_layer=2, n_head=8, n_head_kv=1, head_dim=128),
}


BRIEF: dict[str, Any] = {"ctx": 64, "chunks": 2, "decode": 0, "trajectory": 0}


class Node:
    """As much of a test item as a footprint is reported to."""

    def __init__(self) -> None:
        self.user_properties: list[tuple[str, object]] = []


def footprint(session: Session, pair: Pair) -> dict[str, object]:
    node = Node()
    CellMemory(session, pair, node).check_footprint()  # type: ignore[arg-type]
    return dict(node.user_properties)


@pytest.mark.parametrize("shape", SHAPES)
def test_footprint_equals_geometry_to_the_byte(tmp_path: Path, shape: str) -> None:
    model = SHAPES[shape]
    write(tmp_path / "model.gguf", model)
    pairs = ("q8_0/q8_0", "q5_1/q4_0")
    session = run.start(tmp_path, model=tmp_path / "model.gguf", pairs=pairs, **BRIEF)
    for text in ("f16/f16", *pairs):
        pair = Pair.parse(text)
        per_element = ROW[pair.k] + ROW[pair.v]
        elements = model.n_layer * model.n_head_kv * model.head_dim
        assert footprint(session, pair) == {
            "kv_bytes_per_token": elements * per_element,
            "kv_compression": pytest.approx(4 / per_element),
        }


def test_a_configured_compression_is_a_floor(tmp_path: Path) -> None:
    floors = {"q8_0/*": FloorOverride(compression=3.8)}
    session = run.start(tmp_path, pairs=("q8_0/q8_0",), floors=floors, **BRIEF)
    with pytest.raises(
        pytest.fail.Exception, match=r"1\.882 times less than f16; the floor is 3\.8"
    ):
        footprint(session, Pair("q8_0", "q8_0"))
    footprint(session, Pair("f16", "f16"))
