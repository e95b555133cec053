"""Further texts, disturbed text and what f16 writes, on the embedded model."""

from __future__ import annotations

from pathlib import Path

from support.run import measure, start

FEW = {"decode": 0, "trajectory": 0, "chunks": 4}


def test_each_text_has_a_row_and_its_own_reference(tmp_path: Path) -> None:
    corpus = ("prose", "code", "chat", "tools", "self")
    result = measure(tmp_path, "q4_0/q4_0", corpus=corpus, robustness=True, **FEW)
    q4_0 = next(cell for cell in result.cells if cell.pair == "q4_0/q4_0")
    names = [one.corpus for one in q4_0.texts]
    assert names[0].startswith("code (Python")
    assert names[1:] == ["chat", "tools", "self"]
    kl = [one.quality.kl_mean for one in q4_0.texts if one.quality]
    assert len(set(kl)) == 4
    assert all(0.0005 < value < 0.2 for value in kl)
    f16 = next(cell for cell in result.cells if cell.pair == "f16/f16")
    assert all(one.quality and one.quality.kl_mean == 0 for one in f16.texts)
    assert [one.disturbance for one in q4_0.robustness] == [
        "typing errors", "case", "doubled spaces",
    ]  # fmt: skip
    assert all(one.ratio and 0.5 < one.ratio < 2.5 for one in q4_0.robustness)
    texts = [one.name for one in result.texts]
    assert texts[1:] == ["chat", "tools", "typing errors", "case", "doubled spaces", "self"]
    assert "plain form" in result.texts[1].remark


def test_what_f16_wrote_is_kept_and_stays_the_same(tmp_path: Path) -> None:
    options = {"pairs": ("q8_0/q8_0",), "corpus": ("prose", "self"), **FEW}
    first = start(tmp_path, **options)
    kept = list((tmp_path / "store").rglob("tokens.i32"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    again = start(tmp_path, **options)
    assert kept[0].stat().st_mtime_ns == before
    (one,), (two,) = first.ready.texts.further, again.ready.texts.further
    assert one.record.tokens_hash == two.record.tokens_hash
    assert (one.task.chunks == two.task.chunks).all()
    rows = sorted(map(tuple, one.task.chunks.tolist()))
    assert len(set(rows)) == 4


def test_a_damaged_text_is_written_again(tmp_path: Path) -> None:
    options = {"pairs": ("q8_0/q8_0",), "corpus": ("prose", "self"), **FEW}
    first = start(tmp_path, **options).ready.texts.further[0].record.tokens_hash
    (kept,) = (tmp_path / "store").rglob("tokens.i32")
    kept.write_bytes(kept.read_bytes()[:-40] + bytes(40))
    assert start(tmp_path, **options).ready.texts.further[0].record.tokens_hash == first
