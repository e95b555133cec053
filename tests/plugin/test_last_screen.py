"""What a person sees: the matrix last, one line below it, nothing that buries them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.outer import SMALL, Outcome, pytest_in

TIMED = (
    "--kv-ctx=64", "--kv-chunks=2", "--kv-decode=0", "--kv-trajectory=0", "--kv-probe=off",
    "--kv-coverage=off", "--kv-recall=0", "--kv-sample=0.001", "--kv-rounds=6",
    "--kv-store=store", "--kv-pairs=q8_0/q8_0",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("screen")


@pytest.fixture(scope="module")
def timed(folder: Path) -> Outcome:
    return pytest_in(folder, "--kv-matrix", *TIMED)


def test_the_matrix_is_the_last_thing_and_below_it_one_line(timed: Outcome) -> None:
    lines = timed.text.rstrip().splitlines()
    assert lines[-2].startswith("└")
    assert re.match(r"(PASS|FAIL)", lines[-1])
    assert "of 2 pairs pass" in lines[-1]


def test_no_percentage_stands_where_no_dots_do(timed: Outcome) -> None:
    """pytest ended the lines of the pairs with a line of blanks and "[100%]"."""
    assert "2/2 q8_0/q8_0" in timed.text
    assert "[100%]" not in timed.text


def test_the_tables_of_benchmark_are_off_unless_asked_for(folder: Path, timed: Outcome) -> None:
    assert "OPS" not in timed.text
    asked = pytest_in(folder, "--kv-matrix", *TIMED, "--benchmark-sort=name", "-k", "decode_speed")
    assert "OPS" in asked.text


def test_no_empty_folder_is_left(timed: Outcome, folder: Path) -> None:
    """pytest-benchmark makes `.benchmarks` when it starts, also where nothing will be saved."""
    assert timed.code == 0
    assert not (folder / ".benchmarks").exists()


def test_benchmark_still_saves_where_it_is_asked_to(tmp_path: Path) -> None:
    """Beside, as ever: what the run before knows nothing of."""
    ran = pytest_in(tmp_path, "--kv-matrix", *TIMED, "--benchmark-autosave", "-k", "decode_speed")
    assert ran.code == 0, ran.text
    assert list((tmp_path / ".benchmarks").rglob("*.json"))


def test_cells_are_judged_one_after_the_other(timed: Outcome, folder: Path) -> None:
    collected = pytest_in(folder, "--kv-matrix", *TIMED, "--collect-only", "-q").text
    pairs = re.findall(r"\[(f16/f16|q8_0/q8_0)", collected)
    assert pairs == sorted(pairs)
    places = [timed.text.index(f"{at}/2 {pair}") for at, pair in ((1, "f16/f16"), (2, "q8_0/q8_0"))]
    assert places == sorted(places)


def test_the_tables_of_an_article(folder: Path) -> None:
    ran = pytest_in(folder, "--kv-matrix", *SMALL, "--kv-store=store", "--kv-pairs=q8_0/q8_0",
                    "--kv-table=article:csv")  # fmt: skip
    assert "K/V,PPL,PPL delta,KL (nats),top-1 (%),smaller (×),verdict\n" in ran.text
    assert re.search(r"\nq8_0/q8_0,[\d.]+,[+-][\d.]+,[\d.e-]+,[\d.]+,1\.88,", ran.text)
    assert ran.text.rstrip().splitlines()[-1].startswith("PASS")


FAILING = "[budgets.'q4_0/q8_0']\nkl_mean = 1e-9\n"


@pytest.fixture(scope="module")
def hopeless(folder: Path) -> Outcome:
    """A run whose first pair cannot hold its budget; its result is ``hopeless.json``."""
    (folder / "strict.toml").write_text(FAILING)
    return pytest_in(
        folder, "--kv-matrix", "--kv-config=strict.toml", "--kv-ctx=64", "--kv-profile=pr",
        "--kv-speed=off", "--kv-probe=off", "--kv-store=store", "--kv-fail-fast", "--kv-recall=0",
        "--kv-coverage=off", "--kv-pairs=q4_0/q8_0,q8_0/q8_0,q8_0/q4_0",
        "--kv-json=hopeless.json",
    )  # fmt: skip


def test_a_hopeless_cell_ends_the_run(folder: Path, hopeless: Outcome) -> None:
    assert hopeless.code == 1
    assert "--kv-fail-fast: q4_0/q8_0 failed; 2 of 4 pairs were not measured" in hopeless.text
    last = hopeless.text.rstrip().splitlines()[-1]
    assert last.startswith("FAIL · 1 of 4 pairs pass · q4_0/q8_0: KL ")
    assert "× budget" in last
    from pytest_kvquant.results.file import read

    (cell,) = [one for one in read(folder / "hopeless.json").cells if one.pair == "q4_0/q8_0"]
    assert cell.quality is not None
    assert cell.quality.prefill.chunks < 8
    assert cell.quality.decode is None


def test_x_stops_at_the_first_cell_that_fails(folder: Path) -> None:
    (folder / "strict.toml").write_text(FAILING)
    ran = pytest_in(
        folder, "--kv-matrix", "--kv-config=strict.toml", *SMALL[:-3], "--kv-probe=off",
        "--kv-store=store", "--kv-decode=0", "--kv-trajectory=0", "--kv-speed=off", "-x",
        "--kv-chunks=4", "--kv-pairs=q4_0/q8_0,q8_0/q8_0",
    )  # fmt: skip
    assert "1 failed" in ran.counts
    assert "3/3" not in ran.text


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
@pytest.mark.parametrize("columns", ["60", "80", "120", "200"])
@pytest.mark.usefixtures("hopeless")
def test_every_width_is_clean(folder: Path, columns: str, environment: dict[str, str]) -> None:
    from pytest_kvquant.report.terminal import render
    from pytest_kvquant.results.file import read

    result = read(folder / "hopeless.json")
    text = render(result, width=int(columns), colour=False, ascii_only="TERM" in environment)
    *body, last = text.splitlines()
    assert max(map(len, body)) <= int(columns)
    assert last.startswith("FAIL")
    assert "\x1b" not in text
    if "TERM" in environment:
        assert not set(text) & set("┏━┃│└")


def test_a_page_that_follows_the_run(folder: Path) -> None:
    (folder / "conftest.py").write_text(
        """
import pathlib, shutil
def pytest_runtest_logreport(report):
    page = pathlib.Path("live.html")
    if page.exists() and not pathlib.Path("seen.html").exists():
        shutil.copy(page, "seen.html")
"""
    )
    ran = pytest_in(folder, "--kv-matrix", *SMALL, "--kv-store=store", "--kv-pairs=q8_0/q8_0",
                    "--kv-live", "--kv-report=live.html", "--kv-lines=kv.jsonl", "-p", "conftest",
                    "--kv-json=whole.json")  # fmt: skip
    (folder / "conftest.py").unlink()
    assert ran.code == 0, ran.text
    seen, last = ((folder / name).read_text() for name in ("seen.html", "live.html"))
    assert "1 of 2 pairs are measured, 1 to come." in seen
    assert 'id="follow"' in seen
    assert 'id="incomplete"' not in last
    lines = [json.loads(line) for line in (folder / "kv.jsonl").read_text().splitlines()]
    assert [(one["pair"], one["number"], one["of"]) for one in lines] == [
        ("f16/f16", 1, 2), ("q8_0/q8_0", 2, 2),
    ]  # fmt: skip
    whole = json.loads((folder / "whole.json").read_text())
    assert {one["run"] for one in lines} == {whole["environment"]["started"]}
    kls = [cell["quality"]["prefill"]["kl_mean"] for cell in whole["cells"]]
    assert [one["kl_mean"] for one in lines] == kls
    assert [one["verdict"] for one in lines] == [cell["verdict"] for cell in whole["cells"]]


def test_a_live_page_needs_a_page(folder: Path) -> None:
    ran = pytest_in(folder, "--kv-matrix", *SMALL, "--kv-live")
    assert ran.code == 4
    assert "--kv-live rewrites the page of --kv-report PATH; name one." in ran.text


def test_variants_of_one_build_are_compared(folder: Path) -> None:
    (folder / "variants.toml").write_text("[variants.quiet]\nLLAMA_GRAPH_REUSE_DISABLE = '1'\n")
    words = ["variants", "--kv-config", "variants.toml", "out", "--", *SMALL, "--kv-store=store",
             "--kv-pairs=q8_0/q8_0", "-k", "kl_divergence", "-q"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest_kvquant", *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plain → quiet (LLAMA_GRAPH_REUSE_DISABLE=1)" in done.stdout
    assert "as before: f16/f16, q8_0/q8_0" in done.stdout
    from pytest_kvquant.results.file import read

    assert "LLAMA_GRAPH_REUSE_DISABLE" in str(read(folder / "out" / "quiet.json").environment)
    assert "LLAMA_GRAPH_REUSE_DISABLE" not in str(read(folder / "out" / "plain.json").environment)
