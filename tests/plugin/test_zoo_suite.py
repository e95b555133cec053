"""The zoo as a user runs it: members by name, pairs of the run, red under a planted fault."""

from __future__ import annotations

import json
from pathlib import Path

from support.outer import pytest_in

SMALL = ("--kv-ctx=64", "--kv-chunks=1", "--kv-speed=off", "--kv-coverage=off",
         "--kv-pairs=q8_0/q8_0", "--kv-threads=1", "-p", "no:cacheprovider", "-v")  # fmt: skip
MEMBERS = ("gpt-oss-64", "deepseek2-320")


def run(tmp_path: Path, zoo: str, *more: str):
    return pytest_in(
        tmp_path, "--kv-matrix", *SMALL, f"--kv-zoo={zoo}", f"--kv-store={tmp_path / 's'}", *more
    )


def test_members_by_name_are_tests_and_records(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    found = run(tmp_path, ",".join(MEMBERS), "-k", "test_zoo", f"--kv-json={report}")
    assert found.code == 0, found.text
    for member in MEMBERS:
        for pair in ("f16/f16", "q8_0/q8_0"):
            assert f"test_zoo[{member}-{pair}] PASSED" in found.text
    record = json.loads(report.read_text())
    spent = record["timing"]
    assert spent["parts"]["decode"] > 0
    assert 0.9 * (spent["wall"] - spent["scopes"]["run"]) < spent["scopes"]["zoo"]
    cells = record["zoo"]
    assert [(one["member"], one["pair"]) for one in cells] == [
        (member, pair) for member in MEMBERS for pair in ("f16/f16", "q8_0/q8_0")
    ]
    assert all(one["verdict"] == "pass" and one["kernels"]["corners"] for one in cells)
    assert cells[0]["group"] == 8


def test_a_member_is_examined_in_one_process_that_is_kept(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    found = run(
        tmp_path, MEMBERS[0], "-k", "test_zoo", "--kv-isolation=warm", f"--kv-json={report}"
    )
    assert found.code == 0, found.text
    record = json.loads(report.read_text())
    assert record["timing"]["parts"]["proof"] > 0
    assert [one["verdict"] for one in record["zoo"]] == ["pass", "pass"]


def test_an_unknown_member_is_refused_with_the_nearest(tmp_path: Path) -> None:
    found = run(tmp_path, "gemma2-257")
    assert found.code == 4
    assert "--kv-zoo: the zoo has no member 'gemma2-257'; did you mean 'gemma2-256'?" in found.text


def test_off_is_the_default(tmp_path: Path) -> None:
    found = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, f"--kv-store={tmp_path / 's'}", "--collect-only"
    )
    assert found.code == 0
    assert "test_zoo" not in found.text


def test_a_scenario_that_is_declared_to_fail_is_not_played_on_members(tmp_path: Path) -> None:
    """Nothing would follow from it, and a death costs a process."""
    report = tmp_path / "r.json"
    (tmp_path / "kvquant.toml").write_text(
        '[expect."q8_0/*"]\nfails = ["operations.shift_head"]\n', encoding="utf-8"
    )
    found = run(tmp_path, MEMBERS[0], "-k", "test_zoo", f"--kv-json={report}")
    assert found.code == 0, found.text
    reference, pair = (one["kernels"] for one in json.loads(report.read_text())["zoo"])
    played = [one["name"] for one in reference["scenarios"]]
    assert "shift_head" in played
    played.remove("shift_head")
    assert [one["name"] for one in pair["scenarios"]] == played
    assert any("shift_head of q8_0/q8_0: declared to fail" in one for one in pair["left_out"])
