"""Tables of the docs that a command writes are those of the figures kept beside them."""

from __future__ import annotations

from tools import recall_table
from tools.zoo_survey import page


def test_recall_by_distance() -> None:
    rows = recall_table.read()
    assert {row.pair for row in rows} >= {"f16/f16", "q8_0/q8_0", "q4_0/q4_0"}
    text = recall_table.PAGE.read_text(encoding="utf-8")
    assert f"{recall_table.BEGIN}{recall_table.table(rows)}{recall_table.END}" in text


def test_a_planted_loss_shows_beyond_it_and_only_there() -> None:
    (lossy,) = (row for row in recall_table.read() if "loses" in row.pair)
    verdicts = {point.distance: point.verdict for point in lossy.points}
    beyond = [at for at in verdicts if at > recall_table.LOST_BEYOND]
    assert beyond
    assert [verdicts.pop(at) for at in beyond] == ["fail"] * len(beyond)
    assert "fail" not in verdicts.values()


def test_the_survey() -> None:
    rows = page.read()
    assert page.PAGE.read_text(encoding="utf-8") == page.text(rows)
    assert [row.architecture for row in rows if row.status == "ours"] == []
