"""The package's own scenarios: what they reach, and on which models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pytest_kvquant.quality.scenarios.full_cache import WIDEST
from pytest_kvquant.quality.scenarios.registry import all_scenarios
from pytest_kvquant.quality.scenarios.tape import Tape, spans_of

BY_NAME = {one.name: one for one in all_scenarios() if not one.file}
TOKENS = np.arange(512, dtype=np.int32)


def taped(name: str, window: int = 0) -> Tape:
    scenario = BY_NAME[name]
    tape = Tape(TOKENS, cells=scenario.size(window), window=window)
    scenario.record(tape)
    return tape


@pytest.mark.parametrize("window", [0, 1, 128, 512, 1024, WIDEST])
def test_a_window_is_passed_twice_in_a_cache_that_holds_it(window: int) -> None:
    tape = taped("past_the_window", window)
    ends = [
        position + len(words) for step in tape.steps for _, position, words, _ in spans_of(step)
    ]
    assert 2 * window < max(ends) <= tape.cells


def test_a_window_that_takes_too_long_is_said_to_be_left_out() -> None:
    tape = taped("past_the_window", 4096)
    assert not tape.steps
    assert tape.left == "a window of 4,096 tokens is not passed"


def test_slots_are_of_equal_and_uneven_lengths_as_streams_and_unified() -> None:
    seen = set()
    for name, one in BY_NAME.items():
        if not name.startswith("slots_") or name.endswith("_long"):
            continue
        lengths = {
            spans[0][0]: len(spans[0][2])
            for step in taped(name).steps
            if step[0] == "decode" and len(spans := spans_of(step)) == 1 and not step[2]
        }
        seen.add((one.sequences, one.unified, len(set(lengths.values())) > 1))
    assert seen == set(itertools.product((2, 4, 8), (False, True), (False, True)))
