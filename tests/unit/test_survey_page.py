"""The survey's table: what an architecture counts as, and that no folder of a machine is in it."""

from __future__ import annotations

import pytest

from tools.zoo_survey.measure import Finding
from tools.zoo_survey.page import SurveyRow, line, row, text, total


def test_one_fault_of_ours_makes_the_row_ours() -> None:
    found = row("b", "llama", {
        "f16/f16": Finding(status="measured"), "q8_0/q8_0": Finding(status="ours", text="wrong"),
    })  # fmt: skip
    assert (found.status, found.pairs, found.said) == ("ours", "1 measured, 1 ours", "wrong")


@pytest.mark.parametrize(
    ("statuses", "best"),
    [(("measured", "unsupported"), "measured"), (("library", "unsupported"), "unsupported"),
     (("refused",), "refused"), (("library",), "library")],
)  # fmt: skip
def test_else_it_is_the_best_of_its_pairs(statuses: tuple, best: str) -> None:
    pairs = {str(number): Finding(status=status) for number, status in enumerate(statuses)}
    assert row("b", "a", pairs).status == best


def test_messages_of_the_library_lose_their_folders_and_steer_no_table() -> None:
    said = "/tmp/pip-x_1/vendor/llama.cpp/src/llama.cpp:31: GGML_ASSERT(a|b) q8_0/q4_0 | 1/2"
    found = row("b", "a", {"*": Finding(status="library", text=said)})
    assert "/tmp" not in found.said
    assert found.said.startswith("llama.cpp:31: GGML\\_ASSERT(a/b) q8\\_0/q4\\_0")
    assert line(found).count("|") == 4


def test_the_page_counts_each_build() -> None:
    rows = [SurveyRow("one", "a", "measured", "1 measured", ""),
            SurveyRow("two", "a", "ours", "1 ours", "x")]  # fmt: skip
    assert total(rows) == "Architectures: 2, 1 measured, 1 ours; our fault: 1."
    assert "## one\n\nArchitectures: 1, 1 measured; our fault: 0." in text(rows)
