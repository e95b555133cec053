"""Graphs of architectures that are not like most: what the oracle made of them was wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pytest_kvquant.engine.child.codec import Codecs
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.engine.child.ways import mask_made_of
from pytest_kvquant.numerics.rope import Rope, turn


def node(op: str, *sources: Any, **fields: Any) -> Any:
    made = SimpleNamespace(op=op, source=lambda at: sources[at] if at < len(sources) else None)
    made.root = made.original = made
    vars(made).update(fields)
    return made


def test_a_mask_that_an_indexer_makes_is_told_by_its_operation() -> None:
    """deepseek32, glm-dsa: cells beside the chosen ones are hidden."""
    plain = node("CPY", node("NONE"))
    chosen = node("VIEW", node("ADD", plain))
    assert mask_made_of(node("FLASH_ATTN_EXT", None, None, None, plain)) is None
    assert mask_made_of(node("FLASH_ATTN_EXT", None, None, None, chosen)) == "ADD"
    assert mask_made_of(node("SOFT_MAX", None, chosen)) == "ADD"


def test_a_mask_is_followed_through_the_copy_for_another_device() -> None:
    chosen = node("ADD", node("NONE"))
    copy = node("NONE", original=chosen)
    assert mask_made_of(node("FLASH_ATTN_EXT", None, None, None, node("VIEW", copy))) == "ADD"


def test_an_input_that_was_replaced_in_place_is_known_to_be_gone() -> None:
    """exaone4, granitehybrid: a sum was compared with itself."""
    values = Values(cast(Codecs, None))
    memory = np.arange(8, dtype=np.uint8)
    source = node("MUL_MAT", address=1, data=100, bytes=lambda: memory)
    by = node("MUL", address=2, data=100)
    assert values.overwritten(source, by)
    values.keep(source)
    assert not values.overwritten(source, by)
    values.keep(node("SET_ROWS", root=source))
    assert values.overwritten(source, by)  # rows were set since
    assert not values.overwritten(source, node("MUL", data=300))


def test_what_is_clamped_in_place_is_read_as_it_is_now() -> None:
    """dbrx, mpt, olmo: V was compared with what it was before it was clamped."""
    values = Values(cast(Codecs, None))
    memory = np.arange(8, dtype=np.uint8)
    product = node("MUL_MAT", address=1, bytes=lambda: memory)
    values.keep(product)
    memory.clip(0, 3, out=memory)
    values.keep(node("CLAMP", address=2, root=product, bytes=lambda: memory))
    taken = node("VIEW", address=3, root=product, offset=4)
    np.testing.assert_array_equal(values.bytes(taken), [3, 3, 3, 3])
    memory[:] = 0  # the allocator gives the memory to another node
    np.testing.assert_array_equal(values.bytes(taken), [3, 3, 3, 3])


@pytest.mark.parametrize("mode", [0, 2])
def test_a_rope_that_begins_within_a_head(mode: int) -> None:
    """deepseek4: the first elements of a head are not turned."""
    rng = np.random.default_rng(0)
    heads = rng.normal(size=(3, 2, 96))
    places = np.array([4.0, 9.0, 70.0])
    whole = turn(heads, Rope(32, mode, start=64), places)
    np.testing.assert_array_equal(whole[..., :64], heads[..., :64])
    np.testing.assert_allclose(whole[..., 64:], turn(heads[..., 64:], Rope(32, mode), places))
