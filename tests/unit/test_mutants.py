"""The edits of real kernels: how they are made, without building anything."""

from __future__ import annotations

import pytest
from mutants.build import SWITCH, edited
from mutants.catalogue import ALL, HELD_OUT, Edit

SOURCE = """#include <math.h>
static int other(int n) { return n - 1; }
static int wanted(int n) {
    return n - 1;
}
"""


def test_an_edit_goes_to_its_place_and_is_switched() -> None:
    edit = Edit(
        "tails", "one too few", "x.c", "static int wanted(", "n - 1", "{is} ? n - 2 : n - 1"
    )
    text = edited(SOURCE, {7: edit})
    assert "other(int n) { return n - 1; }" in text
    assert "return (kvquant_mutant() == 7) ? n - 2 : n - 1;" in text
    assert text.index(SWITCH) < text.index("#include <math.h>")


def test_sources_of_another_release_are_told() -> None:
    edit = Edit("tails", "gone", "x.c", "static int wanted(", "n + 5", "n")
    with pytest.raises(LookupError, match="n \\+ 5"):
        edited(SOURCE, {1: edit})


def test_there_are_twenty_five_and_a_half_is_held_out() -> None:
    assert len({one.name for one in ALL}) == len(ALL) == 25
    assert len(HELD_OUT) == 12
    assert all("{is}" in one.after for one in ALL)
    assert len({one.corner for one in ALL}) >= 9
