"""Faults of the plugin itself, and what is undecided where that is asked to count."""

from __future__ import annotations

import json
from pathlib import Path

from support.outer import SMALL, pytest_in

BROKEN = """
from pathlib import Path
import pytest_kvquant.session.cell as module

inner = module.with_quality

def broken(subject, *rest):
    if str(subject.pair) == "q8_0/f16":
        with open("calls.txt", "a") as file:
            file.write("called\\n")
        raise OverflowError("cannot convert float infinity to integer")
    return inner(subject, *rest)

module.with_quality = broken
"""


def test_an_error_of_our_own_is_that_cell_s_verdict_and_told_once(tmp_path: Path) -> None:
    """Measured once, not again by each of its tests; the traceback is in the record."""
    (tmp_path / "broken.py").write_text(BROKEN)
    run = pytest_in(
        tmp_path, "-p", "broken", "--kv-matrix", *SMALL, "--kv-types=f16,q8_0", "--kv-store=store",
        "--kv-json=kv.json", environment={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert run.code == 1, run.text
    assert "INTERNALERROR" not in run.text
    assert (tmp_path / "calls.txt").read_text().count("called") == 1
    assert run.text.count("Traceback (most recent call last)") == 1
    cells = {one["pair"]: one for one in json.loads((tmp_path / "kv.json").read_text())["cells"]}
    assert cells["q8_0/f16"]["verdict"] == "error"
    assert "OverflowError: cannot convert float infinity" in cells["q8_0/f16"]["message"]
    assert "in broken" in cells["q8_0/f16"]["traceback"]
    assert {pair for pair, one in cells.items() if one["verdict"] == "error"} == {"q8_0/f16"}
    assert "1 failed" in run.counts


def test_strict_leaves_nothing_undecided_green(tmp_path: Path) -> None:
    """The same run is green without it: two chunks decide few gates."""
    words = ("--kv-matrix", *SMALL, "--kv-pairs=q8_0/f16", "--kv-store=store")
    usual = pytest_in(tmp_path, *words)
    assert usual.code == 0, usual.text
    strict = pytest_in(tmp_path, *words, "--kv-strict", "--kv-json=kv.json")
    assert strict.code == 1, strict.text
    (cell,) = (
        one
        for one in json.loads((tmp_path / "kv.json").read_text())["cells"]
        if one["pair"] == "q8_0/f16"
    )
    undecided = [gate for gate in cell["gates"] if gate["verdict"] == "inconclusive"]
    assert undecided
    failed = [line for line in strict.text.splitlines() if line.startswith("FAILED ")]
    assert len(failed) >= len({gate["name"] for gate in undecided if "ratio" not in gate["name"]})
    of_f16 = [line for line in failed if "[q8_0/f16]" not in line]
    assert all("test_baseline[f16/f16]" in line for line in of_f16), "none was accepted yet"
    assert strict.text.strip().splitlines()[-1].startswith("FAIL · "), strict.text
