"""One run over several devices by pytest-xdist. Two cores of a CPU are two devices here."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from support.outer import SMALL, Outcome, figures, pytest_in
from support.run import PREAMBLE

from pytest_kvquant.machine.environment import WORKER_HOOK

TYPES = ("--kv-types=f16,q8_0,q4_0", "--kv-threads=1", "-p", "no:cacheprovider")


def two_cores() -> list[int]:
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(usable) < 2:
        pytest.skip("two cores that a process can be kept to are needed for two devices")
    return usable[:2]


def spread(folder: Path, *words: str, environment: dict[str, str] | None = None) -> Outcome:
    """A run with two processes on a core each."""
    one, two = two_cores()
    devices = f"--kv-devices=CPU:{one},CPU:{two}"
    return pytest_in(folder, "--kv-matrix", "-n2", devices, *words, environment=environment)


def result(path: Path) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return whole


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    words = (*SMALL, *TYPES, "--kv-chunks=4")
    there = spread(tmp_path, *words, "--kv-store=a", "--kv-json=spread.json")
    alone = pytest_in(tmp_path, "--kv-matrix", *words, "--kv-store=b", "--kv-json=alone.json")
    assert there.code == alone.code == 0, there.text + alone.text
    assert figures(tmp_path / "spread.json") == figures(tmp_path / "alone.json")
    one, other = result(tmp_path / "alone.json"), result(tmp_path / "spread.json")
    assert [cell["pair"] for cell in other["cells"]] == [cell["pair"] for cell in one["cells"]]
    for name in ("model", "corpus", "settings", "floor", "advice", "baselines"):
        assert other[name] == one[name], name
    for name in ("computed", "reused", "damaged"):
        assert other["reference"][name] == one["reference"][name]
    assert one["reference"]["computed"] == 4

    def counts(text: str) -> dict[str, str]:
        return {word: n for n, word in re.findall(r"(\d+) (passed|skipped)", text)}

    assert counts(there.counts) == counts(alone.counts)
    assert "f16 reference: computed for 4 chunks" in there.text


def test_pairs_are_timed_on_the_device_of_their_process(tmp_path: Path) -> None:
    words = (*SMALL, *TYPES, "--kv-pairs=q8_0/q8_0", "--kv-speed=on", "--kv-pp=8", "--kv-tg=2",
             "--kv-sample=0.002", "-k", "decode_speed", "-rs")  # fmt: skip
    ran = spread(tmp_path, *words, "--kv-json=r.json")
    assert ran.code == 0, ran.text
    assert [one["pair"] for one in result(tmp_path / "r.json")["speed"]] == ["f16/f16", "q8_0/q8_0"]
    ran = spread(tmp_path, *words, "--benchmark-disable")
    assert "nothing was measured: pytest-benchmark is disabled" in ran.text
    assert "passed" not in ran.counts


def test_what_only_the_whole_matrix_shows_fails_the_run(tmp_path: Path) -> None:
    """Two cells with the same logits, in two processes: neither can see the other."""
    hook = tmp_path / "hook.py"
    hook.write_text(
        f"{PREAMBLE}"
        "plant(change_logits=lambda x, *_: np.tile(np.arange(x.shape[1]) % np.float32(7), "
        "(len(x), 1)))\n",
        encoding="utf-8",
    )
    (tmp_path / "kvquant.toml").write_text(f"[environment]\n{WORKER_HOOK} = '{hook}'\n")
    ran = spread(
        tmp_path, *SMALL, "--kv-pairs=q8_0/f16,q4_0/f16", "--kv-threads=1", "-k", "distinct",
        "--kv-json=r.json",
    )  # fmt: skip
    assert ran.code == 1, ran.text
    verdicts = {cell["pair"]: cell["verdict"] for cell in result(tmp_path / "r.json")["cells"]}
    assert verdicts == {"f16/f16": "pass", "q8_0/f16": "aliased", "q4_0/f16": "aliased"}
    assert "is 'aliased' beside the cells of the other processes" in ran.text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-n3", "--kv-devices=CPU:0,CPU:1"], "-n 3 needs 3 devices, one for each"),
        (["-n2"], "--kv-devices is not given"),
        (["-n2", "--kv-devices=CPU:0,CPU:1", "--kv-rpc=a:1"], "-n 2 does not run with --kv-rpc"),
        (["-n2", "--kv-llama=--rpc a:1"], "-n 2 does not run with --kv-rpc"),
        (["--kv-devices=CPU:9999"], "may not use all of these cores"),
    ],
)
def test_devices_that_cannot_be_are_refused(
    tmp_path: Path, words: list[str], complaint: str
) -> None:
    two_cores()
    ran = pytest_in(tmp_path, "--kv-matrix", *SMALL, *words)
    assert ran.code == 4, ran.text
    assert complaint in ran.text
    assert "Traceback" not in ran.text
    assert "workers" not in ran.text, "no process of pytest-xdist was started"


@pytest.mark.parametrize("words", [("--tx", "2*popen"), ("--tx", "ssh=nowhere//python=python3")])
def test_a_farm_over_tx_is_refused_in_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    ran = pytest_in(tmp_path, "--kv-matrix", *SMALL, "--dist=load", *words)
    assert ran.code == 4, ran.text
    assert "does not run over --tx" in ran.text
    assert "kvquant merge" in ran.text
    assert "Traceback" not in ran.text
    assert "KeyError" not in ran.text


def test_without_more_processes_the_first_device_is_used(tmp_path: Path) -> None:
    one, two = two_cores()
    ran = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, "--kv-pairs=f16/f16", "--kv-json=r.json",
        f"--kv-devices=CPU:{one},CPU:{two}",
    )  # fmt: skip
    assert ran.code == 0, ran.text
    assert f"only CPU:{one} is used; -n 2 spreads the cells over all devices" in ran.text
    assert result(tmp_path / "r.json")["settings"]["threads"] == 1
