"""A speed test is one declaration: collected, timed, held against a floor, reported."""

from __future__ import annotations

import json
import os
from pathlib import Path

from support.outer import SMALL, Outcome, pytest_in

from pytest_kvquant.config.speed_tests import NAMES

DECLARATION = """
from pytest_kvquant.config import speed_tests

speed_tests.SPEED_TESTS += (
    speed_tests.DeclaredSpeedTest(
        name="xq", title="verification", test="test_third_speed",
        document="Four tokens at once, as drafts are verified.",
        help="tokens of the verification test (default: 64; embedded model: 16)",
        at_once=4, tokens=64, embedded=16, floor=0.001,
    ),
)
speed_tests.NAMES = tuple(one.name for one in speed_tests.SPEED_TESTS)
"""

COUNTED = """
from pytest_kvquant.engine.child import stream

decode, sizes = stream.Stream._decode, open("sizes", "a", buffering=1)


def counted(self, batch):
    sizes.write(f"{batch.n_tokens}\\n")
    decode(self, batch)


stream.Stream._decode = counted
"""
"""A worker's hook: how many tokens each ``llama_decode`` is given."""

TIMED = ("--kv-speed=on", "--kv-sample=0.001", "--kv-rounds=6",
         *(f"--kv-{name}=0" for name in NAMES))  # fmt: skip


def run(folder: Path, *arguments: str) -> Outcome:
    (folder / "third.py").write_text(DECLARATION)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return pytest_in(
        folder, "-p", "third", "--kv-matrix", "-v", *SMALL, *TIMED, "--kv-pairs=q8_0/q8_0",
        "--kv-store=store", "-k", "speed", *arguments, environment={"PYTHONPATH": path},
    )  # fmt: skip


def test_a_third_speed_test_is_timed_and_reported(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(COUNTED)
    (tmp_path / "kvquant.toml").write_text(
        f"[environment]\nKVQUANT_WORKER_HOOK = '{tmp_path / 'hook.py'}'\n"
        '[floors."*/*"]\nxq = 0.002\n'
    )
    ran = run(tmp_path, "--kv-json=r.json")
    assert "test_third_speed[q8_0/q8_0-d0] PASSED" in ran.text, ran.text
    assert "xq16" in ran.text.partition("Speed over")[2]
    result = json.loads((tmp_path / "r.json").read_text())
    (cell,) = [one for one in result["speed"] if one["pair"] == "q8_0/q8_0"]
    (test,) = cell["tests"]
    assert (test["name"], test["n_gen"], test["floor"], test["verdict"]) == (
        "xq", 16, 0.002, "pass",
    )  # fmt: skip
    assert test["ratio"] > 0.002
    sizes = (tmp_path / "sizes").read_text().split()
    assert set(sizes) <= {"1", "4"}  # single tokens show what the cache holds, and that it lives
    each = 16 // 4 // test["parts"]  # calls of a sample: a slow machine takes the test in parts
    assert sizes.count("4") >= 3 * 6 * 2 * each  # two cells and one f16, two samples a round


def test_its_option_and_its_floor_are_checked_as_those_of_the_others(tmp_path: Path) -> None:
    assert "--kv-xq=N" in run(tmp_path, "--help").text
    none = " and ".join(f"--kv-{name} 0" for name in (*NAMES, "xq"))
    assert f"{none} leave no speed test" in run(tmp_path, "--kv-xq=0").text
    (tmp_path / "kvquant.toml").write_text('[floors."*/*"]\nxq = "fast"\n')
    assert "xq: 'fast' stands where a number belongs" in run(tmp_path).text
