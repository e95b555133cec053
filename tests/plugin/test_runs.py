"""Whole runs: what they say, what they write, and that a second one repeats them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.interrupted import as_from_a_terminal
from support.outer import SMALL, Outcome, figures, pytest_in

from pytest_kvquant.machine.environment import WORKER_HOOK

PAIR = "q4_0/q8_0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def run(folder: Path, name: str, *arguments: str, **environment: str) -> Outcome:
    return pytest_in(
        folder, "--kv-matrix", *SMALL, "--kv-store=store", f"--kv-json={name}.json",
        f"--kv-pairs={PAIR}", *arguments, environment=environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def first(folder: Path) -> Outcome:
    return run(folder, "first", CI="1")


@pytest.fixture(scope="module")
def result(first: Outcome, folder: Path) -> dict[str, Any]:
    assert first.code == 0, first.text
    whole: dict[str, Any] = json.loads((folder / "first.json").read_text())
    return whole


class TestOutput:
    def test_plain_lines_without_control_characters(self, first: Outcome) -> None:
        assert re.search(r"\nkvquant: 1/2 f16/f16  pass  KL 0  top-1 100.00%  \d.* s", first.text)
        assert re.search(rf"\nkvquant: 2/2 {PAIR}  \w+  KL .* s\n", first.text)
        assert "\x1b" not in first.text
        assert "\r" not in first.text

    def test_the_table_and_the_conditions(self, first: Outcome, result: dict[str, Any]) -> None:
        assert "KV-cache matrix" in first.text
        assert f"KL {0}" in first.text
        for word in ("kvq-mini", "corpus", "64 tokens a chunk, 31 scored, 2 chunks", "CPU",
                     "threads", result["environment"]["library"]["bindings"]):  # fmt: skip
            assert word in " ".join(first.text.split())

    def test_the_reference_is_said_to_be_computed(self, first: Outcome) -> None:
        assert "f16 reference: computed for 2 chunks" in first.text


class TestJson:
    def test_its_sections(self, result: dict[str, Any]) -> None:
        assert result["schema"].startswith("pytest-kvquant/")
        assert {"environment", "model", "corpus", "settings", "reference", "cells"} <= set(result)
        assert [cell["pair"] for cell in result["cells"]] == ["f16/f16", PAIR]

    def test_a_cell(self, result: dict[str, Any]) -> None:
        cell = result["cells"][1]
        assert cell["verdict"] in ("pass", "inconclusive", "fail")
        names = [gate["name"] for gate in cell["gates"]]
        assert {"kl_mean", "kl_tail", "ln_ppl_ratio", "top1_flips"} <= set(names)
        for gate in cell["gates"]:
            assert {"verdict", "figure", "low", "high", "budget", "unit", "rule"} <= set(gate)

    def test_the_figures(self, result: dict[str, Any]) -> None:
        prefill = result["cells"][1]["quality"]["prefill"]
        for name in ("ppl", "ppl_reference", "ppl_delta", "ln_ppl_ratio", "kl_mean", "kl_median",
                     "kl_p99", "kl_p999", "kl_max", "top1", "mean_dp", "rms_dp", "ppl_se",
                     "kl_mean_se", "top1_se", "mean_dp_se", "rms_dp_se", "ln_ppl_ratio_se",
                     "kl_mean_chunk_se"):  # fmt: skip
            assert isinstance(prefill[name], float), name
        assert (prefill["tokens"], prefill["chunks"]) == (62, 2)
        assert 0 < prefill["kl_median"] <= prefill["kl_p99"] <= prefill["kl_max"]
        assert 0 < prefill["top1"] <= 1

    def test_f16_is_itself(self, result: dict[str, Any]) -> None:
        prefill = result["cells"][0]["quality"]["prefill"]
        assert result["cells"][0]["verdict"] == "pass"
        for name in ("kl_mean", "kl_max", "kl_min", "ppl_delta", "ln_ppl_ratio", "rms_dp"):
            assert prefill[name] == 0, name
        assert prefill["top1"] == 1

    def test_the_conditions(self, result: dict[str, Any]) -> None:
        assert result["corpus"]["chunks"] == [0, 1]
        assert len(result["corpus"]["tokens_hash"]) == 16
        assert result["settings"]["ctx"] == 64
        assert result["model"]["vocabulary"] > 1000
        library = result["environment"]["library"]
        assert library["hash"]
        assert library["types"]["q8_0"] == {"id": 8, "block": 32, "bytes": 34, "cache": True}


def test_a_second_run_reuses_the_reference_to_the_last_bit(
    folder: Path, result: dict[str, Any]
) -> None:
    again = run(folder, "second")
    assert again.code == 0, again.text
    assert "f16 reference: reused for 2 chunks" in again.text
    assert "computed" not in again.text.partition("f16 reference:")[2]
    assert figures(folder / "second.json") == figures(folder / "first.json")


def test_a_damaged_reference_is_computed_again_and_said(
    folder: Path, result: dict[str, Any]
) -> None:
    damaged = 0
    for path in (folder / "store").rglob("*.f32"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        damaged += 1
    assert damaged
    again = run(folder, "third")
    assert again.code == 0, again.text
    assert "2 stored chunks were damaged and computed again" in " ".join(again.text.split())
    assert figures(folder / "third.json") == figures(folder / "first.json")


@pytest.mark.parametrize(
    "options",
    ["-p no:terminal", "-p no:capture",
     "-s -p no:cacheprovider -p no:xdist -p no:benchmark -p no:syrupy -p no:timeout"],
)  # fmt: skip
def test_without_this_or_that_plugin(options: str, folder: Path, result: dict[str, Any]) -> None:
    done = run(folder, "without", *options.split())
    assert done.code == 0, done.text
    assert "Traceback" not in done.text
    assert figures(folder / "without.json") == figures(folder / "first.json")
    if "terminal" not in options:
        assert "KV-cache matrix" in done.text


def test_on_a_terminal_one_line_is_rewritten(folder: Path, result: dict[str, Any]) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest", "--kv-matrix", *SMALL, "--kv-store=store",
               f"--kv-pairs={PAIR}", "--color=yes"]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    with subprocess.Popen(
        command, cwd=folder, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm"}
    ) as live:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 1 << 16):
                text += part
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(ours)
    assert live.returncode == 0, text.decode()
    assert f"\rkvquant: 2/2 {PAIR}: quality, 2 of at most 2 chunks".encode() in text
    assert f"\rkvquant: 2/2 {PAIR}: quality, types of its cache".encode() in text
    assert b"\x1b[32m" in text


@pytest.fixture(scope="module")
def broken(folder: Path, first: Outcome) -> Outcome:
    """A budget that nothing keeps, and a cell whose worker dies."""
    (folder / "strict.toml").write_text(
        "skip = ['bf16/*']\ntypes = ['bf16', 'f16']\n[budgets.'q4_0/*']\nkl_mean = 1e-9\n"
        f"[environment]\n{WORKER_HOOK} = 'hook.py'\n"
    )
    (folder / "hook.py").write_text(
        "import os\nfrom pytest_kvquant.engine.child.context import Context\n"
        "before = Context.__init__\n"
        "def opened(self, model, *, type_k, **shape):\n"
        "    if type_k == 'q5_1':\n"
        "        os.write(2, b'ggml.c:1: GGML_ASSERT(ne0 > 0) failed\\n')\n        os.abort()\n"
        "    before(self, model, type_k=type_k, **shape)\n"
        "Context.__init__ = opened\n"
    )
    return run(
        folder, "broken", "--kv-config=strict.toml", f"--kv-pairs={PAIR},q5_1/f16",
        "--kv-chunks=4", "-rs",
    )  # fmt: skip


class TestFailures:
    def test_in_words(self, broken: Outcome) -> None:
        assert broken.code == 1
        assert f"{PAIR}: mean KL fails:" in broken.text
        assert "against a budget of" in broken.text
        said = (
            "It stopped at ggml.c:1: GGML_ASSERT(ne0 > 0) failed. The worker was killed by SIGABRT"
        )
        assert f"q5_1/f16: crashed. {said}" in broken.text
        assert "The end of the library's log:\nggml.c:1: GGML_ASSERT(ne0 > 0)" in broken.text
        for word in ("Traceback", "INTERNALERROR", "def test_", ".py:"):
            assert word not in broken.text.partition("FAILURES")[2].partition("short test summ")[0]

    def test_each_is_told_once(self, broken: Outcome) -> None:
        assert broken.text.count("The end of the library's log:") == 1
        assert "was not measured: crashed" in broken.text

    def test_the_file_is_written(self, broken: Outcome, folder: Path) -> None:
        cells = {
            cell["pair"]: cell for cell in json.loads((folder / "broken.json").read_text())["cells"]
        }
        assert cells[PAIR]["verdict"] == "fail"
        assert cells["q5_1/f16"]["verdict"] == "crashed"
        assert cells["f16/f16"]["verdict"] == "pass"

    def test_the_command_in_the_text_repeats_that_cell(self, broken: Outcome, folder: Path) -> None:
        commands = {
            line.partition("again")[2].strip()
            for line in broken.text.splitlines()
            if line.lstrip().startswith("again ")
        }
        (command,) = [one for one in commands if PAIR in one]
        words = shlex.split(command)
        assert words[0] == "pytest"
        alone = pytest_in(folder, *words[1:], "--kv-json=alone.json")
        assert alone.code == 1
        assert f"{PAIR}: mean KL fails:" in alone.text
        assert "f16 reference: reused" in alone.text
        once, again = figures(folder / "broken.json"), figures(folder / "alone.json")
        assert set(again) == {"f16/f16", PAIR}
        assert again[PAIR][:3] == once[PAIR][:3]


def test_an_interrupted_run_keeps_what_it_has(folder: Path, result: dict[str, Any]) -> None:
    """Ctrl-C in the second cell: the first one is in the table and in the file."""
    (folder / "slow.py").write_text(
        "import time\nfrom pathlib import Path\n"
        "from pytest_kvquant.engine.child.context import Context\n"
        "before = Context.__init__\n"
        "def opened(self, model, *, type_k, **shape):\n"
        "    if type_k == 'q4_0':\n"
        f"        Path({str(folder / 'reached')!r}).touch()\n        time.sleep(1e6)\n"
        "    before(self, model, type_k=type_k, **shape)\n"
        "Context.__init__ = opened\n"
    )
    (folder / "slow.toml").write_text(f"[environment]\n{WORKER_HOOK} = '{folder / 'slow.py'}'\n")
    command = [sys.executable, "-m", "pytest", "--kv-matrix", *SMALL, "--kv-store=store2",
               "--kv-json=interrupted.json", f"--kv-pairs={PAIR}",
               "--kv-config=slow.toml"]  # fmt: skip
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=as_from_a_terminal,  # noqa: PLW1509
    ) as live:  # fmt: skip
        while not (folder / "reached").exists() and live.poll() is None:
            time.sleep(0.05)
        live.send_signal(signal.SIGINT)
        text, _ = live.communicate(timeout=60)
    assert live.returncode == 2, text
    assert "KV-cache matrix" in text
    assert set(figures(folder / "interrupted.json")) == {"f16/f16"}


def test_budgets_that_nothing_uses_are_named(tmp_path: Path) -> None:
    (tmp_path / "kvquant.toml").write_text('[budgets]\n"f16/f16" = {kl_mean = 1}\n')
    ran = run(tmp_path, "named", "-k", "test_measurable")
    assert "budgets for 'f16/f16' are not used" in ran.text
