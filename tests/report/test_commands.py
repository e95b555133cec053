"""``kvquant compare``, ``merge``, ``history`` and ``schema``, as a shell runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pytest_kvquant.cli.main import CLOSED_PIPE, main
from pytest_kvquant.report.snapshot import of_result
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.file import encode, read
from pytest_kvquant.results.result import SCHEMA, Result

replace = msgspec.structs.replace


@pytest.fixture
def small(matrix: Callable[..., Result]) -> Result:
    return matrix(types=("f16", "q8_0", "q4_0"))


def _write(path: Path, result: Result) -> str:
    path.write_bytes(encode(result))
    return str(path)


def _kl(result: Result, pair: str, factor: float) -> Result:
    """The result with the KL of one pair multiplied."""
    cells = tuple(
        cell
        if cell.pair != pair
        else replace(
            cell,
            per_chunk={**cell.per_chunk, "kl": tuple(x * factor for x in cell.per_chunk["kl"])},
        )
        for cell in result.cells
    )
    return replace(result, cells=cells)


@pytest.mark.parametrize(
    ("factor", "code", "word"),
    [(1.0, 0, "equal"), (1.02, 0, "changed"), (1.2, 1, "worse"), (0.8, 0, "better"),
     (0.0, 1, "inactive")],
)  # fmt: skip
def test_compare_tells_a_drift(
    small: Result,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    factor: float,
    code: int,
    word: str,
) -> None:
    one = _write(tmp_path / "a.json", small)
    two = _write(tmp_path / "b.json", _kl(small, "q4_0/q4_0", factor))
    assert main(["compare", one, two]) == code
    line = next(line for line in capsys.readouterr().out.splitlines() if "│ q4_0/q4_0" in line)
    assert word in line


def test_compare_says_a_drift_in_the_words_of_a_baseline(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In percent, in units of its own noise, and what is tolerated; an improvement as well."""
    one = _write(tmp_path / "a.json", small)
    main(["compare", one, _write(tmp_path / "b.json", _scattered(small, "q4_0/q4_0", 0.8))])
    said = " ".join(capsys.readouterr().out.split())
    found = re.search(
        r"q4_0/q4_0: better than the first result \(under the same conditions\): KL \S+ → \S+ "
        r"\(-(\d+\.\d\d) % ± \S+ %, \d+\.\d × its noise, tolerated 5\.0 %\) over \d+ chunks",
        said,
    )
    assert found, said
    assert float(found[1]) == pytest.approx(20, abs=0.5)
    assert "1 got better" in said


def test_compare_holds_f16_against_its_own_perplexity(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its KL and its ln PPL ratio are zero whatever the build does."""
    f16 = next(cell for cell in small.cells if cell.pair == "f16/f16")
    columns = {**f16.per_chunk, "nll_cell": tuple(x + 0.01 for x in f16.per_chunk["nll_cell"])}
    moved = replace(f16, per_chunk=columns)
    cells = tuple(moved if cell.pair == "f16/f16" else cell for cell in small.cells)
    one, two = (
        _write(tmp_path / "a.json", small),
        _write(tmp_path / "b.json", replace(small, cells=cells)),
    )
    assert main(["compare", one, two]) == 1
    assert "f16/f16: worse than the first result" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("across", "word"), [([], "worse"), (["--across"], "changed")])
def test_other_machines_may_be_apart_by_rounding(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str], across: list[str], word: str
) -> None:
    """8 % are a drift on one machine, and what rounding may be on another: as of a baseline."""
    after = _kl(small, "q4_0/q4_0", 1.08)
    if across:
        after = replace(after, settings=replace(after.settings, threads=64))
    one, two = _write(tmp_path / "a.json", small), _write(tmp_path / "b.json", after)
    main(["compare", one, two, *across])
    line = next(line for line in capsys.readouterr().out.splitlines() if "│ q4_0/q4_0" in line)
    assert word in line or f"▲ {word}" in line


def _scattered(result: Result, pair: str, factor: float) -> Result:
    """The result with the KL of one pair multiplied, by a little more in every second chunk."""
    seen = next(cell for cell in result.cells if cell.pair == pair).per_chunk["kl"]
    kl = tuple(x * factor * (1 + 0.001 * (at % 2)) for at, x in enumerate(seen))
    cells = tuple(
        replace(cell, per_chunk={**cell.per_chunk, "kl": kl}) if cell.pair == pair else cell
        for cell in result.cells
    )
    return replace(result, cells=cells)


def test_compare_sees_a_lost_pass(small: Result, tmp_path: Path) -> None:
    lost = replace(small, cells=(replace(small.cells[0], verdict="crashed"), *small.cells[1:]))
    one, two = _write(tmp_path / "a.json", small), _write(tmp_path / "b.json", lost)
    assert main(["compare", one, two]) == 1
    assert main(["compare", two, one]) == 0


def test_compare_in_markdown(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = _write(tmp_path / "a.json", small)
    two = _write(tmp_path / "b.json", _kl(small, "q8_0/q4_0", 2.0))
    assert main(["compare", one, two, "--markdown"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "## ❌ KV-cache matrix, compared"
    assert lines[2] == r"**1 of 9 cells got worse: q8\_0/q4\_0.**"


def test_a_pair_that_vanished_is_worse(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = replace(small, cells=small.cells[:-1])
    one, two = _write(tmp_path / "a.json", small), _write(tmp_path / "b.json", fewer)
    assert main(["compare", one, two]) == 1
    assert f"1 vanished: {small.cells[-1].pair}." in capsys.readouterr().out
    assert main(["compare", "--markdown", one, two]) == 1
    assert "| ❌ **vanished** |" in capsys.readouterr().out
    assert main(["compare", two, one]) == 0


def test_other_conditions_are_named_and_not_judged(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(
        small,
        settings=replace(small.settings, threads=64),
        environment=replace(small.environment, variables_set={"GGML_X": "1"}),
    )
    one, two = _write(tmp_path / "a.json", small), _write(tmp_path / "b.json", other)
    assert main(["compare", one, two]) == 2
    out, said = capsys.readouterr()
    assert "→ GGML_X=1" in said
    assert f"threads: {small.settings.threads} → 64" in said
    assert "got worse" not in out
    page = tmp_path / "d.html"
    assert main(["diff", one, two, "--markdown", "--html", str(page)]) == 2
    summary = capsys.readouterr().out
    assert "✅" not in summary, "the summary of a pull request was green, and nothing was judged"
    assert summary.startswith("## ⚠️ KV-cache matrix, compared\n\n**Not judged: conditions differ (")
    assert "<strong>Not judged</strong>" in page.read_text()
    assert main(["compare", one, two, "--across", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("## ✅")


def test_the_summary_has_arrows_and_what_failed_first(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = replace(
        small.cells[1],
        verdict="fail",
        per_chunk={
            name: tuple(3 * x if name == "kl" else x for x in values)
            for name, values in small.cells[1].per_chunk.items()
        },
    )
    cells = (small.cells[0], worse, *small.cells[2:])
    one = _write(tmp_path / "a.json", small)
    two = _write(tmp_path / "b.json", replace(small, cells=cells))
    assert main(["diff", one, two, "--markdown", "--html", str(tmp_path / "d.html")]) == 1
    text = capsys.readouterr().out
    assert text.index(f"- ❌ `{worse.pair}`") < text.index("K \\\\ V")
    assert "▲" in text.partition("K \\\\ V")[2].partition("<details>")[0]
    assert "condition" in (tmp_path / "d.html").read_text()


def test_compare_refuses_other_tokens(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(small, settings=replace(small.settings, ctx=256))
    one, two = _write(tmp_path / "a.json", small), _write(tmp_path / "b.json", other)
    assert main(["compare", one, two]) == 2
    assert "these conditions differ: tokens per chunk: 128 → 256." in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", None])
def test_a_file_that_is_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    assert main(["compare", str(path), str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"kvquant compare: {path}")
    assert error.count("\n") == 1


COMMANDS = ("compare", "merge", "history", "llama-bench", "show", "report", "coverage", "export",
            "import")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["truncated", "later", "empty", "folder", "pipe", "NUL"])
def test_what_cannot_be_read_is_one_line(
    kind: str, command: str, small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Truncated, of a later schema, empty, a folder, a pipe that nobody writes to, a name."""
    path = tmp_path / "x.json"
    whole = encode(small)
    match kind:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "later":
            path.write_bytes(whole.replace(SCHEMA.encode(), b"pytest-kvquant/99", 1))
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "NUL":
            path = tmp_path / "a\0b"
    out = str(tmp_path / "o")
    words = {
        "compare": [str(path), str(path)],
        "merge": [str(path), "-o", out],
        "coverage": [str(path), str(path)],
        "export": ["--csv", out, str(path)],
        "import": [str(path), out],
    }
    assert main([command, *words.get(command, [str(path)])]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith(f"kvquant {command}: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err


def test_the_worst_f16_of_all_shards_counts(small: Result, tmp_path: Path) -> None:
    """Each shard has an f16/f16; one that fails is not dropped for the first one's pass."""
    reference, *others = small.cells
    assert reference.verdict == "pass"
    broken = replace(
        reference, verdict="fail",
        checks=(Check(name="shapes", verdict="fail", text="differs"), *reference.checks),
    )  # fmt: skip
    shards = [
        _write(tmp_path / "a.json", replace(small, cells=(reference, *others[:4]))),
        _write(tmp_path / "b.json", replace(small, cells=(broken, *others[4:]))),
    ]
    for order in (shards, shards[::-1]):
        assert main(["merge", *order, "-o", str(tmp_path / "all.json")]) == 1
        merged = {cell.pair: cell for cell in read(tmp_path / "all.json").cells}
        assert merged["f16/f16"].verdict == "fail"


def test_a_reader_may_stop_before_the_end(tmp_path: Path) -> None:
    """As ``| head -1`` does: no traceback, and the code of a program that a closed pipe ended."""
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest_kvquant", "schema"],
        stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (CLOSED_PIPE, "")


def test_merge_puts_shards_together(small: Result, tmp_path: Path) -> None:
    first = replace(small, cells=small.cells[:5])
    second = replace(small, cells=(small.cells[0], *small.cells[5:]))
    out = tmp_path / "all.json"
    shards = [_write(tmp_path / "a.json", first), _write(tmp_path / "b.json", second)]
    assert main(["merge", *shards, "--out", str(out)]) == 0
    merged = read(out)
    assert [cell.pair for cell in merged.cells] == [cell.pair for cell in small.cells]
    assert merged.seconds == pytest.approx(2 * small.seconds)


def test_merge_corrects_for_chance_over_all_shards(
    matrix: Callable[..., Result], tmp_path: Path
) -> None:
    """A failure that stands among few gates may be chance among many."""
    whole = matrix(types=("f16", "q8_0", "q5_1", "q4_0"))
    whole = replace(whole, settings=replace(whole.settings, strict=False))
    weak = replace(whole.cells[1].gates[0], verdict="fail", p_value=0.001)
    failing = replace(whole.cells[1], verdict="fail", gates=(weak,), checks=())
    others = [replace(cell, digests=(str(at),)) for at, cell in enumerate(whole.cells)]
    one = replace(whole, cells=(failing,))
    two = replace(whole, cells=(others[0], *others[2:]))
    paths = [_write(tmp_path / "a.json", one), _write(tmp_path / "b.json", two)]
    assert main(["merge", paths[0], "-o", str(tmp_path / "m.json")]) == 1
    assert read(tmp_path / "m.json").cells[0].verdict == "fail"
    assert main(["merge", *paths, "-o", str(tmp_path / "m.json")]) == 0
    merged = read(tmp_path / "m.json").cells[0]
    assert (merged.verdict, merged.not_significant) == ("inconclusive", ("kl_mean",))


def test_merge_refuses_other_conditions(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = replace(small.environment.library, hash="0123")
    other = replace(small, environment=replace(small.environment, library=library))
    paths = [_write(tmp_path / "a.json", small), _write(tmp_path / "b.json", other)]
    assert main(["merge", *paths, "-o", str(tmp_path / "m.json")]) == 2
    assert "the build is '0123'" in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()


def test_merge_refuses_two_outcomes_of_a_pair(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = replace(small, cells=(replace(small.cells[0], digests=("0",) * 3), *small.cells[1:]))
    paths = [_write(tmp_path / "a.json", small), _write(tmp_path / "b.json", odd)]
    assert main(["merge", *paths, "-o", str(tmp_path / "m.json")]) == 2
    assert "has other logits for f16/f16" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_comparison_fits_its_screen(
    small: Result,
    columns: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It took 95 columns of every screen, three of them empty where no speed was measured."""
    monkeypatch.setenv("COLUMNS", str(columns))
    path = _write(tmp_path / "a.json", small)
    assert main(["compare", path, path]) == 0
    whole = capsys.readouterr().out
    assert max(map(len, whole.splitlines())) <= columns
    assert "top-1" in whole
    quiet = _write(tmp_path / "b.json", replace(small, speed=()))
    assert main(["compare", quiet, quiet]) == 0
    assert "decode" not in capsys.readouterr().out


def test_history(small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for day in range(1, 9):
        worse = _quality(small, 1.5 if day > 5 else 1.0 + day / 1000)
        environment = replace(small.environment, started=f"2026-11-0{day}T00:00:00+00:00")
        _write(tmp_path / f"{day}.json", replace(worse, environment=environment))
    (tmp_path / "other.json").write_text("{}")
    page = tmp_path / "h.html"
    assert main(["history", str(tmp_path), "--html", str(page)]) == 0
    told = capsys.readouterr()
    line = next(line for line in told.out.splitlines() if "│ q4_0/q4_0" in line)
    assert "▁▁▁▁▁|███" in line
    assert "2026-11-06" in line
    assert "KL (nats)" in told.out
    one = of_result(small)
    assert one.title in told.out.splitlines(), "a title was broken at the width of its table"
    text = page.read_text()
    assert f"<h2>{one.title.split(' · ')[0]}</h2>" in text
    assert "8 runs, 2026-11-01" in text
    assert "other.json is not a result" in told.err
    assert "series-0" in text


def test_what_a_project_holds_beside_results_is_a_line_each_kind(
    small: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``kvquant history .`` in a user's project: baselines, other tools' JSON, hidden folders."""
    _write(tmp_path / "kv.json", small)
    for folder in ("baselines/ab/f16", ".venv/share", "web"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(20):
        accepted = {"schema": "pytest-kvquant-baseline/1", "pair": f"{number}"}
        (tmp_path / f"baselines/ab/f16/{number}.json").write_text(json.dumps(accepted))
        (tmp_path / f".venv/share/{number}.json").write_text("{}")
        (tmp_path / f"web/{number}.json").write_text("{}")
    assert main(["history", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "q4_0/q4_0" in told.out
    *named, others, baselines = told.err.splitlines()
    assert len(named) == 3
    assert all("web/" in line for line in named)
    assert others == "kvquant history: left out: 17 more files"
    assert "left out: 20 baselines (--git shows them" in baselines


def test_history_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", str(tmp_path)]) == 2
    assert "holds no result file" in capsys.readouterr().err


def test_the_schema_in_docs_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = Path(__file__).parents[2] / "docs" / "result.schema.json"
    assert json.loads(kept.read_text()) == printed, "kvquant schema > docs/result.schema.json"


def _quality(result: Result, factor: float) -> Result:
    cells = []
    for cell in result.cells:
        assert cell.quality is not None
        prefill = cell.quality.prefill
        moved = replace(prefill, kl_mean=prefill.kl_mean * factor)
        cells.append(replace(cell, quality=replace(cell.quality, prefill=moved)))
    return replace(result, cells=tuple(cells))
