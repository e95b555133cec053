"""kvquant report, show, export and import: views of results that were kept."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from pytest_kvquant.cli.main import main
from pytest_kvquant.errors import ResultError
from pytest_kvquant.report import snapshot
from pytest_kvquant.report.article import FORMATS, article, sheets
from pytest_kvquant.report.export import tables
from pytest_kvquant.report.html import render as render_page
from pytest_kvquant.report.terminal import render as render_terminal
from pytest_kvquant.results.cell import HealthyRecord
from pytest_kvquant.results.file import encode
from pytest_kvquant.results.result import Result

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture
def timed(matrix: Callable[..., Result]) -> Result:
    return matrix(types=("f16", "q8_0", "turbo4"), depths=2)


@pytest.fixture
def kept(timed: Result, tmp_path: Path) -> Path:
    path = tmp_path / "kv.json"
    path.write_bytes(encode(timed))
    return path


def test_the_tables_of_an_article_have_every_pair_and_units(timed: Result) -> None:
    quality, speed = sheets(timed)
    assert [line[0] for line in quality.lines] == [cell.pair for cell in timed.cells]
    assert quality.head[1:5] == ("PPL", "PPL delta", "KL (nats)", "top-1 (%)")
    assert speed.head == (
        "K/V", "pp @ 0 (tok/s)", "tg @ 0 (tok/s)", "pp @ 8,192 (tok/s)", "tg @ 8,192 (tok/s)",
    )  # fmt: skip


def test_perplexities_of_other_tokens_are_not_put_below_each_other(timed: Result) -> None:
    """f16/f16 was decided after 4 chunks, the others after 8: its 50.5 stood above their 54.1."""
    first = timed.cells[0]
    assert first.quality is not None
    fewer = msgspec.structs.replace(first.quality.prefill, chunks=1)
    quality = msgspec.structs.replace(first.quality, prefill=fewer)
    cells = (msgspec.structs.replace(first, quality=quality), *timed.cells[1:])
    apart = msgspec.structs.replace(timed, cells=cells)
    sheet = sheets(apart)[0]
    assert sheet.head[1:4] == ("PPL", "f16's, same tokens", "PPL delta")
    for _, own, reference, delta, *_ in sheet.lines:
        assert float(own) - float(reference) == pytest.approx(float(delta), abs=2e-4)
    note = "between pairs of other chunks only the delta"
    assert note in render_page(apart)
    assert note not in render_page(timed)


@pytest.mark.parametrize("how", FORMATS)
def test_each_format(timed: Result, how: str) -> None:
    text = article(timed, how)
    assert "turbo4" in text
    if how == "csv":
        first = text.partition("\nK/V,pp")[0]
        rows = list(csv.reader(io.StringIO(first)))
        assert {len(row) for row in rows} == {7}
        assert float(rows[-1][3]) > 0
    if how == "latex":
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
        assert "q8_0" not in text
        assert r"q8\_0" in text


def test_a_result_without_figures_has_no_tables(timed: Result) -> None:
    with pytest.raises(ResultError, match="neither quality nor speed"):
        article(msgspec.structs.replace(timed, cells=(), speed=()), "markdown")


def test_sqlite_holds_what_the_result_holds(kept: Path, timed: Result, tmp_path: Path) -> None:
    base = tmp_path / "kv.db"
    assert main(["export", "--sqlite", str(base), str(kept)]) == 0
    assert main(["export", "--sqlite", str(base), str(kept)]) == 0  # the same run: not doubled
    with closing(sqlite3.connect(base)) as database:
        found = dict(database.execute("SELECT pair, kl_mean FROM cells"))
        assert found == {
            cell.pair: cell.quality.prefill.kl_mean for cell in timed.cells if cell.quality
        }
        ((runs,),) = database.execute("SELECT count(*) FROM run")
        assert runs == 1
        ((gates,),) = database.execute(
            "SELECT count(*) FROM gates JOIN run USING (run_id) WHERE verdict = 'pass'"
        )
        assert gates == sum(len(cell.gates) for cell in timed.cells)
        names = [row[1] for row in database.execute("PRAGMA table_info(speed)")]
    assert {"avg_ts", "n_depth", "type_k", "n_prompt", "samples_ns"} <= set(names)


def test_csv_has_a_file_for_each_table(kept: Path, timed: Result, tmp_path: Path) -> None:
    assert main(["export", "--csv", str(tmp_path / "out"), str(kept)]) == 0
    for name, table in tables(timed).items():
        with (tmp_path / "out" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            assert len(list(csv.DictReader(file))) == len(table)


def test_a_page_and_a_summary_of_a_kept_result(kept: Path, tmp_path: Path) -> None:
    page, summary = tmp_path / "p.html", tmp_path / "s.md"
    assert main(["report", str(kept), "--html", str(page), "--summary", str(summary)]) == 0
    assert "turbo4/turbo4" in page.read_text()
    assert "KV-cache matrix" in summary.read_text()


def test_the_tables_are_asked_for_by_the_words_of_a_run(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``kvquant report kv.json --table article:csv`` was refused: a run takes that word."""
    printed = {}
    for word in ("article", "markdown", "article:csv", "csv", "article:latex", "latex"):
        assert main(["report", str(kept), "--table", word]) == 0
        printed[word] = capsys.readouterr().out
    assert printed["article"] == printed["markdown"]
    assert printed["article:csv"] == printed["csv"]
    assert printed["article:latex"] == printed["latex"]
    assert len(set(printed.values())) == 3


@pytest.mark.parametrize("fitness", ["not judged", "fail"])
def test_the_matrix_speaks_of_fitness_where_budgets_are_set(timed: Result, fitness: str) -> None:
    """A first run without budgets said "fit: not judged" in every cell."""
    healthy = HealthyRecord(
        kl_mean=0.01, decode_kl_mean=None, chunks=4, computed=4, per_chunk=(0.01,), seconds=1.0
    )
    cells = tuple(
        msgspec.structs.replace(cell, healthy=healthy, fitness=fitness, verdict="pass")
        for cell in timed.cells
    )
    text = render_terminal(msgspec.structs.replace(timed, cells=cells), width=200, colour=False)
    assert ("fit: " in text) == (fitness == "fail")


def test_show_prints_the_matrix_or_one_pair(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert main(["show", str(kept)]) == 0
    whole = capsys.readouterr().out
    assert max(map(len, whole.splitlines()[:-1])) <= 70
    assert whole.splitlines()[-1].startswith("PASS")
    assert main(["show", str(kept), "q8_0/turbo4"]) == 0
    one = capsys.readouterr().out
    assert "mean KL passes" in one
    checks = one.split("\nchecks\n")[1].split("\n\n")[0].splitlines()
    assert checks
    assert len({line.index(" pass ") for line in checks if " pass " in line}) == 1
    assert "tg128 @ d8192" in one
    assert main(["show", str(kept), "q8_0/q1"]) == 2
    assert "has no pair 'q8_0/q1'. It has: f16/f16, " in capsys.readouterr().err


def test_llama_bench_files_become_points_of_a_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next((GOLDEN / "llama_bench").glob("*.json"))
    entries = json.loads(source.read_text())
    entries = entries if isinstance(entries, list) else [entries]
    (tmp_path / "b.json").write_text(json.dumps(entries))
    out = tmp_path / "h" / "points.json"
    out.parent.mkdir()
    assert main(["import", str(tmp_path / "b.json"), str(out)]) == 0
    points = snapshot.decode(out.read_bytes(), "points")
    pairs = {f"{entry['type_k']}/{entry['type_v']}" for entry in entries}
    assert {pair for point in points for pair in point.figures} == pairs
    capsys.readouterr()
    metric = "tg" if any(entry["n_gen"] for entry in entries) else "pp"
    assert main(["history", str(out.parent), "--metric", metric]) == 0
    assert pairs.pop() in capsys.readouterr().out


def bench(type_k: str, depth: int, speed: float, **more: object) -> dict[str, object]:
    return {
        "build_commit": "abc", "model_filename": "/x/m.gguf", "cpu_info": "cpu", "type_k": type_k,
        "type_v": type_k, "n_prompt": 0, "n_gen": 128, "n_depth": depth, "avg_ts": speed,
        "test_time": "2026-01-01T00:00:00Z", **more,
    }  # fmt: skip


def test_the_ratio_of_llama_bench_is_taken_at_the_deepest_shared_depth() -> None:
    entries = [
        bench("f16", 0, 100.0), bench("f16", 8192, 50.0), bench("q8_0", 0, 90.0),
        bench("q8_0", 8192, 25.0), bench("q4_0", 0, 80.0), bench("q4_0", 65536, 5.0),
        bench("q8_0", 0, 1.0, n_prompt=512),
    ]  # fmt: skip
    (point,) = snapshot.of_llama_bench(json.dumps(entries).encode(), "b.json")
    assert point.figures["q8_0/q8_0"]["tg_ratio"] == pytest.approx(0.5)
    assert point.figures["q4_0/q4_0"]["tg_ratio"] == pytest.approx(0.8)
    assert point.figures["q4_0/q4_0"]["tg"] == 5.0
    assert "pp" not in point.figures["q8_0/q8_0"]


REFRACT = {
    "schema": "refract.report.v0.3.1", "timestamp": "2026-07-01T10:00:00", "model": "/m/q.gguf",
    "candidate": "ctk=q8_0,ctv=turbo4", "environment": {"backend": "llamacpp"},
    "axes": {"kld": {"mean_kld": 0.013, "same_topp_pct": 95.3, "ctx": 512, "chunks": 32,
                     "skipped": False, "corpus": {"path": "/tmp/wiki.raw"}}},
}  # fmt: skip


def test_refract_reports_become_points() -> None:
    (point,) = snapshot.foreign(json.dumps(REFRACT).encode(), "r.json")
    assert point.figures == {"q8_0/turbo4": {"kl": 0.013, "top1": 0.953}}
    assert "wiki.raw" in point.title


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("{}", "neither a list of llama-bench"),
        ("[]", "holds no test"),
        ('[{"type_k": "f16"}]', "lacks type_v"),
        (json.dumps({**REFRACT, "candidate": "x"}), "names no pair"),
        (json.dumps({**REFRACT, "axes": {"kld": {"skipped": True}}}), "skipped its KLD axis"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_in_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ResultError, match=says):
        snapshot.foreign(text.encode(), "f.json")
