"""A mask against what each query may see, where the header says how far and where it does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.judge_mask import judge_mask
from pytest_kvquant.engine.child.mirror import Mirror
from pytest_kvquant.engine.child.values import Values

CELLS, WINDOW = 16, 4
UNSAID = Facts(window_length=WINDOW, windowed=None)


def said_of(shown: np.ndarray | None, windows: tuple[int, ...]) -> Any:
    """What is found of the masks of the eight tokens that fill the first eight cells."""
    mirror = Mirror(unified=True)
    mirror.given(np.arange(8, dtype=np.int32), np.zeros(8, np.int32))
    placed = mirror.written(np.arange(8), CELLS, 1)
    mask = None if shown is None else SimpleNamespace(name="KQ_mask", ne=(CELLS, 8, 1, 1))
    keys = SimpleNamespace(ne=(64, CELLS, 1, 1), root=SimpleNamespace(name="cache_k_l0"))
    node = SimpleNamespace(op="FLASH_ATTN_EXT", name="fattn-0", floats=np.zeros(16), backend="CPU",
                           source=lambda at: {1: keys, 3: mask}[at])  # fmt: skip
    given = np.where(causal() if shown is None else shown, 0.0, -np.inf)
    values = cast(Values, SimpleNamespace(rows=lambda *_: given))
    return judge_mask(cast(Any, node), values, mirror, placed, windows, 0)


def test_attention_without_a_mask_shows_everything() -> None:
    """A graph that leaves the mask out was not judged."""
    (found,) = said_of(None, (0,))
    assert "query 0 (position 0): it shows cell 1" in found.text


def causal(window: int = CELLS) -> np.ndarray:
    at = np.arange(CELLS)
    distance = np.arange(8)[:, None] - at
    return np.asarray((distance >= 0) & (distance < window))


@pytest.mark.parametrize("window", [WINDOW, CELLS])
def test_either_form_is_right_where_the_header_does_not_say_which(window: int) -> None:
    """The right mask of a window failed: it hides a cell, it was said."""
    (found,) = said_of(causal(window), UNSAID.windows(0))
    assert not found.text


def test_another_form_is_named_and_not_called_wrong() -> None:
    assert said_of(causal(5), UNSAID.windows(0)) is None


def test_rows_do_not_choose_for_themselves() -> None:
    mixed = causal(WINDOW)
    mixed[7] = causal()[7]
    assert said_of(mixed, UNSAID.windows(0)) is None


def test_what_no_window_shows_is_wrong_whatever_the_window() -> None:
    shown = causal(5)
    shown[3, 4] = True
    (found,) = said_of(shown, UNSAID.windows(0))
    assert "mask of layer 0" in found.text


def test_where_the_header_says_it_nothing_else_is_right() -> None:
    facts = Facts(window_length=WINDOW, windowed=(True, False))
    assert "hides cell 0" in said_of(causal(3), facts.windows(1))[0].text
    assert "hides cell 0" in said_of(causal(3), facts.windows(0))[0].text
    assert "shows cell 0" in said_of(causal(5), facts.windows(0))[0].text
    assert not said_of(causal(WINDOW), facts.windows(0))[0].text
