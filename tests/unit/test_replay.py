"""Evidence kept and judged again: the way to disk and back, and that a replay is the run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.declaration import ATTRIBUTE, Budget, Figures, Given, gate
from pytest_kvquant.checks.family import settled
from pytest_kvquant.checks.judging import figures_per_chunk, first_chunks, judge_figures
from pytest_kvquant.checks.kl_mean import judge_kl_mean
from pytest_kvquant.cli.main import main
from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.kernels import TokenFigures
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.quality.evidence_file import (
    EvidenceConditions,
    EvidenceError,
    Kept,
    read,
    read_folder,
    write,
)
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.session.replay import drawn, replay, replay_cells

GOLDEN = Path(__file__).parents[1] / "golden" / "perplexity"
SCORED = 64
BUDGETS = {"kl_mean": 0.02, "kl_tail": 0.05, "kl_tail_over": 0.1, "ln_ppl": 0.02, "top1_flips": 0.2}


def conditions(pair: str, **changed: object) -> EvidenceConditions:
    given = EvidenceConditions(
        pair=pair,
        model="m",
        model_fingerprint="0",
        embedded=False,
        corpus="c",
        corpus_fingerprint="0",
        tokens_hash="0",
        chunk_numbers=(0,),
        order="shuffled",
        seed=0,
        shape=BatchShape(ctx=130, scored=SCORED, sequences=1, batch=130, ubatch=130, threads=1),
        library="l",
        library_hash="0",
        device="CPU",
        environment={},
        budgets=BUDGETS,
        rules=Rules(),
        tie_band=0.0,
        figures_in_run=8,
        digests=("0",),
        plugin="0",
    )
    return msgspec.structs.replace(given, **changed)


def evidence(chunks: int, kl: float, *, vocabulary: int = 50_000, seed: int = 0) -> Evidence:
    """Tokens of an invented cell with a mean KL of about ``kl``."""
    rng = np.random.default_rng(seed)
    made = Evidence(chunks, SCORED, tail_over=BUDGETS["kl_tail_over"], tie_band=0.0)
    for chunk in range(chunks):
        nll = rng.exponential(3.0, SCORED)
        top = rng.integers(0, vocabulary, SCORED).astype(np.int32)
        figures = TokenFigures(
            nll_reference=nll,
            nll_cell=nll + rng.normal(0, kl, SCORED),
            kl=rng.gamma(1.0, kl, SCORED),
            delta_p=rng.normal(0, 0.01, SCORED),
            margin=rng.exponential(1.0, SCORED),
            top_reference=top,
            top_cell=np.where(rng.random(SCORED) < kl, (top + 1) % vocabulary, top).astype("i4"),
            digest=rng.integers(0, 2**63, SCORED).astype(np.uint64),
        )
        made.put(chunk, 0, figures)
    return made


def test_figures_come_back_to_seven_digits_and_tokens_exactly(tmp_path: Path) -> None:
    made = evidence(3, 0.01, vocabulary=200_000)
    kept = read(write(tmp_path / "new", conditions("q8_0/q4_0"), made))
    assert kept.conditions == conditions("q8_0/q4_0")
    for name, column in made.tokens()._asdict().items():
        back = getattr(kept.columns, name)
        if name.startswith("top_"):
            np.testing.assert_array_equal(back, column)
        elif name != "digest":
            np.testing.assert_allclose(back, column, rtol=1e-7)
    for before, after in zip(made.per_chunk(), kept.evidence().per_chunk(), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-7)


def test_only_complete_chunks_are_kept(tmp_path: Path) -> None:
    made = Evidence(8, SCORED, tail_over=0.1, tie_band=0.0)
    whole = evidence(2, 0.01)
    for chunk in range(2):
        made.put(chunk, 0, TokenFigures._make(column[chunk] for column in whole.columns))
    assert read(write(tmp_path, conditions("a/b"), made)).columns.kl.shape == (2, SCORED)


def test_a_file_has_about_thirty_bytes_a_token(tmp_path: Path) -> None:
    path = write(tmp_path, conditions("a/b"), evidence(32, 0.01))
    assert path.stat().st_size < 30 * 32 * SCORED


def test_a_replay_repeats_the_verdicts(tmp_path: Path) -> None:
    for pair, kl in [("a/b", 0.004), ("a/c", 0.05), ("a/d", 0.0199)]:
        write(tmp_path, conditions(pair, figures_in_run=12), evidence(32, kl))
    again = replay(tmp_path)
    assert [cell.conditions.pair for cell in again] == ["a/b", "a/c", "a/d"]
    for cell, kl in zip(again, [0.004, 0.05, 0.0199], strict=True):
        so_far = first_chunks(figures_per_chunk(evidence(32, kl)), cell.chunks)
        expected = judge_figures(so_far, SCORED, BUDGETS, Rules())
        assert [gate.verdict for gate in cell.gates] == [gate.verdict for gate in expected]
        assert [gate.figure for gate in cell.gates] == pytest.approx(
            [gate.figure for gate in expected], rel=1e-5, abs=1e-7
        )
    passing, failing, undecided = again
    assert passing.verdict == "pass"
    assert passing.chunks < 32
    assert failing.verdict == "fail"
    assert any(failing.stands)
    assert failing.chunks < passing.chunks + 8
    assert undecided.verdict == "inconclusive"
    assert undecided.chunks == 32


def test_other_budgets_and_rules_need_no_model(tmp_path: Path) -> None:
    write(tmp_path, conditions("a/b"), evidence(32, 0.004))
    tight = {**BUDGETS, "kl_mean": 0.001}
    (cell,) = replay(tmp_path, budgets=lambda _: tight)
    assert cell.verdict == "fail"
    wide_tail = {**BUDGETS, "kl_tail_over": 0.001}
    (cell,) = replay(tmp_path, budgets=lambda _: wide_tail)
    assert {gate.name for gate in cell.gates if gate.verdict == "fail"} == {"kl_tail"}
    (cell,) = replay(tmp_path, rules=Rules(cap=16, early=False))
    assert (cell.chunks, cell.gates[0].level) == (16, 0.01)


def test_what_is_not_a_number_is_no_verdict(tmp_path: Path) -> None:
    made = evidence(4, 0.004)
    broken = TokenFigures._make(column[3] for column in made.columns)
    broken.kl[5] = np.nan
    made.put(3, 0, broken)
    write(tmp_path, conditions("a/b"), made)
    write(tmp_path, conditions("a/c"), evidence(32, 0.1))
    lost, failing = replay(tmp_path)
    assert (lost.verdict, lost.gates) == ("non-finite", ())
    assert any(failing.stands)


def test_drawn_is_the_first_chunk_at_which_all_gates_are_settled() -> None:
    for kl in (0.004, 0.03, 0.06):
        seen = figures_per_chunk(evidence(32, kl))

        def settled_at(chunks: int, seen: Figures = seen) -> bool:
            judged = judge_figures(first_chunks(seen, chunks), SCORED, BUDGETS, Rules())
            return all(settled(gate, 60) for gate in judged)

        first = next((n for n in range(1, 33) if settled_at(n)), 32)
        assert drawn(seen, SCORED, BUDGETS, Rules(), 60) == first


def test_the_command_judges_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, conditions("q4_0/q4_0"), evidence(32, 0.004))
    assert main(["replay", str(tmp_path)]) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[1].split()[:2] == ["q4_0/q4_0", "pass"]
    tight = tmp_path / "kvquant.toml"
    tight.write_text('[budgets."q4_0/*"]\nkl_mean = 0.0005\n')
    assert main(["replay", str(tmp_path), "--kv-config", str(tight)]) == 1
    assert "q4_0/q4_0: mean KL fails" in capsys.readouterr().out
    assert main(["replay", str(tmp_path), "--kv-chunks", "16"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[2] == "16"
    assert main(["replay", str(tmp_path / "none")]) == 2
    assert "holds no evidence" in capsys.readouterr().err


def test_the_golden_evidence_replays() -> None:
    again = {cell.conditions.pair: cell for cell in replay_cells(read_folder(GOLDEN))}
    assert set(again) == {"q8_0/q8_0", "q8_0/turbo4"}
    assert again["q8_0/turbo4"].gates[0].figure == pytest.approx(0.011461, abs=2e-6)


def test_a_cell_measured_again_replaces_its_file(tmp_path: Path) -> None:
    write(tmp_path, conditions("a/b"), evidence(2, 0.01))
    write(tmp_path, conditions("a/b"), evidence(5, 0.01))
    (kept,) = read_folder(tmp_path)
    assert isinstance(kept, Kept)
    assert len(kept.columns.kl) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["a--b.npz"]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="holds no evidence"):
        read_folder(tmp_path)
    (tmp_path / "a--b.npz").write_bytes(b"no archive")
    with pytest.raises(EvidenceError, match=r"a--b\.npz is not evidence"):
        read_folder(tmp_path)
    np.savez(tmp_path / "a--b.npz", kl=np.zeros(3))
    with pytest.raises(EvidenceError, match="is not evidence"):
        read(tmp_path / "a--b.npz")
    with pytest.raises(EvidenceError, match="is not written over"):
        write(tmp_path, conditions("a/b"), evidence(2, 0.01))
    path = write(tmp_path, conditions("c/d", schema="pytest-kvquant-evidence/0"), evidence(2, 0.01))
    with pytest.raises(EvidenceError, match="evidence/0"):
        read(path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(EvidenceError, match="--kv-evidence"):
        write(blocked, conditions("a/b"), evidence(2, 0.01))


def test_evidence_that_is_older_than_a_gate_is_judged_by_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @gate("late", title="late", test="test_late", budget=Budget("late", "nats", default=0.1234))
    def late(seen: Figures, given: Given) -> Gate:
        """Declared after the evidence was kept."""
        return judge_kl_mean(seen["kl"], given.budgets["late"], given.rules)

    every = (*registry.declared(), getattr(late, ATTRIBUTE))
    monkeypatch.setattr(registry, "declared", lambda: every)
    seen = figures_per_chunk(evidence(8, 0.01))
    found = judge_figures(seen, SCORED, BUDGETS, Rules(cap=8))
    assert [one.budget for one in found if one.name == "kl_mean"][1:] == [0.1234]


def test_evidence_with_budgets_of_further_gates_apart_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier versions kept it."""
    kept = conditions("a/b")
    older = {**msgspec.to_builtins(kept), "budgets": {**BUDGETS, "more": {"late": 0.5}}}
    encode = msgspec.json.encode
    monkeypatch.setattr(
        msgspec.json, "encode", lambda told: encode(older if told == kept else told)
    )
    path = write(tmp_path, kept, evidence(2, 0.01))
    assert read(path).conditions.budgets == {**BUDGETS, "late": 0.5}
