"""Text from outside steers neither a terminal nor a CI log."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.machine.escape import inert, one_line, paragraph, throughout

HOSTILE = st.text(st.characters(codec=None), max_size=80) | st.sampled_from(
    [
        "::error::x",
        "a\n::set-output name=x::y",
        "\x1b]0;title\x07",
        "##vso[task.complete]",
        "\u202e",
        "a\u2066b\u2069",
        "\u200f\u061c\ufeff",
    ]
)


@given(HOSTILE)
def test_one_line_is_one_line_without_controls(text: str) -> None:
    shown = one_line(text)
    assert shown.splitlines() in ([shown], [])
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", shown)
    steering = {"Cc", "Cs", "Zl", "Zp"}
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    marks = {"\u200e", "\u200f", "\u061c"}
    for character in text:
        if (
            unicodedata.category(character) in steering
            or unicodedata.bidirectional(character) in directions
            or character in marks
        ):
            assert character not in shown
            assert f"{ord(character):x}" in shown or character in "\t\n\r"
    assert not shown.lstrip().startswith("::")
    shown.encode("utf-8")


@given(HOSTILE)
def test_no_line_of_a_paragraph_is_a_command(text: str) -> None:
    for line in paragraph(text).split("\n"):
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", line)


def test_colours_of_ours_stay_and_do_not_hide_a_command() -> None:
    assert inert("\x1b[31mred\x1b[0m") == "\x1b[31mred\x1b[0m"
    assert "\\::error" in inert("\x1b[31m::error::x")


def test_every_string_of_a_record() -> None:
    assert throughout({"a": ["x\ny", {"b": "\x1b"}], "n": 1}) == {
        "a": ["x\\ny", {"b": "\\x1b"}],
        "n": 1,
    }
