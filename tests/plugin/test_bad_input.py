"""Bad input: one clear line that says what to do, exit code 4, no traceback."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import gguf
import pytest
from support.outer import SMALL, pytest_in
from support.tinygguf import Tiny, write

import pytest_kvquant.session.start as heavy
from pytest_kvquant.cli.main import main
from pytest_kvquant.data import EMBEDDED_CORPUS, EMBEDDED_MODEL

assert heavy, "imported before pytester takes note of what is: NumPy cannot be imported twice"


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    """Files that are wrong, each in its own way; the tests run in the midst of them."""
    root = pytester.path
    (root / "empty.gguf").touch()
    (root / "text.gguf").write_text("not a model at all")
    whole = EMBEDDED_MODEL.read_bytes()
    (root / "header.gguf").write_bytes(whole[:5000])
    (root / "half.gguf").write_bytes(whole[: len(whole) // 2])
    writer = gguf.GGUFWriter(root / "bert.gguf", "bert")
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_head_count(1)
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    (root / "empty.txt").write_text("  \n")
    (root / "latin.txt").write_bytes("Müller".encode("latin-1"))
    (root / "short.txt").write_text("Too short.")
    (root / "nothing").mkdir()
    (root / "broken").mkdir()
    (root / "broken" / "libllama.so").write_text("not a library")
    return root


CASES = {
    "model missing": (["--kv-model=absent.gguf"], "absent.gguf does not exist; give a GGUF file"),
    "model empty": (["--kv-model=empty.gguf"], "empty.gguf is empty; give a GGUF file"),
    "model of another kind": (["--kv-model=text.gguf"], "is not a GGUF file (it starts with"),
    "model cut in the header": (["--kv-model=header.gguf"], "download or convert it again"),
    "model cut in the weights": (["--kv-model=half.gguf"], "half.gguf is truncated: its tensors"),
    "model of embeddings": (["--kv-model=bert.gguf"], "needs a text-generating model"),
    "model is a folder": (["--kv-model=nothing"], "The folder nothing holds no GGUF model"),
    "corpus missing": (["--kv-corpus=absent.txt"], "absent.txt does not exist; give a text file"),
    "corpus empty": (["--kv-corpus=empty.txt"], "empty.txt is empty; give a UTF-8 text"),
    "corpus not UTF-8": (["--kv-corpus=latin.txt"], "is not UTF-8 (byte 1 is 0xfc); convert it"),
    "corpus too short": (["--kv-corpus=short.txt"], "tokens, and 2 chunks of 64 tokens take 128"),
    "type unknown": (["--kv-pairs=q8_0/turbo9"], "'turbo9' is not a type of this library"),
    "type that is no cache type": (["--kv-pairs=q8_0/i32"], "'i32' cannot hold a KV cache of this"),
    "pair malformed": (["--kv-pairs=q8_0"], "write K/V, for example q8_0/q4_0"),
    "skip of nothing": (["--kv-skip=q2_K/*"], "--kv-skip q2_K/* matches no cell of this run"),
    "library missing": (["--kv-lib=nothing"], "There is no libllama in"),
    "library broken": (["--kv-lib=broken"], "libllama.so does not load:"),
    "store is a file": (["--kv-store=short.txt"], "cannot be written (File exists); choose"),
    "store below a file": (["--kv-store=short.txt/x"], "cannot be written (Not a directory)"),
    "JSON without a folder": (["--kv-json=absent/r.json"], "there is no such folder"),
    "JSON is a folder": (["--kv-json=nothing"], "is a folder"),
    "JSON is a device": (["--kv-json=/dev/null"], "that is not a regular file"),
    "JSON where nothing can be written": (["--kv-json=/proc/self/r.json"], "cannot be written"),
    "configuration missing": (["--kv-config=absent.toml"], "there is no such file"),
    "number malformed": (["--kv-ctx=many"], "--kv-ctx many: not a number"),
    "budget pattern malformed": (["--kv-config=budget.toml"], "'q8_0' is not a pair"),
    "floor pattern malformed": (["--kv-config=floor.toml"], "[floors] 'q8_0' is not a pair"),
    "expect pattern malformed": (["--kv-config=expect.toml"], "[expect] '*/q8_0 @ 5' is not"),
    "speed baseline missing": (
        ["--kv-speed=on", "--kv-speed-baseline=absent.json"],
        "absent.json is not a result written by --kv-json",
    ),
    "baselines in a file": (["--kv-baselines=short.txt/x"], "short.txt"),
    "device unknown": (["--kv-devices=CUDA7"], "CUDA7"),
    "cores that are not here": (["--kv-devices=CPU:9999"], "may not use all of these cores"),
    "cores malformed": (["--kv-devices=CPU:b"], "cores are one number or a range"),
    "processes without devices": (["-n2"], "-n 2 needs 2 devices, one for each pytest process"),
    "processes on one device": (
        ["-n2", "--kv-devices=CPU:0,CPU:0"],
        "CPU:0 and CPU:0 share a device",
    ),
    "TOML malformed": (["--kv-config=torn.toml"], "torn.toml is not valid TOML"),
    "key unknown": (["--kv-config=typo.toml"], "unknown key 'typess'; did you mean 'types'?"),
    "budget unknown": (["--kv-config=typo2.toml"], "unknown key 'kl_men' in [budgets"),
    "floor unknown": (["--kv-config=typo3.toml"], "slowdwn"),
    "expect unknown": (["--kv-config=typo4.toml"], "substitutd"),
    "context beyond the text": (["--kv-ctx=1048576"], "chunks of 1048576 tokens take"),
    "interpreter missing": (["--kv-python=absent/python"], "absent/python"),
    "interpreter without the package": (
        ["--kv-python=./bare"],
        "lacks numpy: a worker needs",
    ),
    "reference build missing": (["--kv-reference-lib=nothing"], "There is no libllama in"),
    "page followed without a page": (["--kv-live"], "--kv-live rewrites the page of --kv-report"),
    "outputs that are one file": (
        ["--kv-json=r.json", "--kv-summary=r.json"],
        "that is the file of --kv-json",
    ),
    "evidence over a file": (["--kv-evidence=short.txt"], "short.txt"),
    "decode negative": (["--kv-decode=-1"], "--kv-decode must not be negative"),
    "shard malformed": (["--kv-shard=3/2"], "3/2"),
    "scenarios missing": (["--kv-scenarios=absent.py"], "absent.py"),
    "zoo member unknown": (["--kv-zoo=lama"], "lama"),
    "options of llama.cpp unknown": (["--kv-llama=--flash-atn on"], "flash-atn"),
    "hook missing": (["--kv-config=hook.toml"], "absent.py cannot be read (No such file"),
    "speed baseline cut": (
        ["--kv-speed=on", "--kv-speed-baseline=cut.json"],
        "cut.json is not a result",
    ),
    "speed baseline is a folder": (
        ["--kv-speed=on", "--kv-speed-baseline=nothing"],
        "nothing is not a result written by --kv-json: a folder.",
    ),
    "speed baseline is a pipe": (
        ["--kv-speed=on", "--kv-speed-baseline=pipe"],
        "pipe is not a result written by --kv-json: no regular file.",
    ),
    "scored too many": (["--kv-scored=64"], "--kv-scored must lie between 1 and"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_before_the_first_cell(
    case: str, folder: Path, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    """By pytest, and by the doctor in the same words."""
    (folder / "budget.toml").write_text("[budgets.'q8_0']\nkl_mean = 1\n")
    (folder / "floor.toml").write_text("[floors]\n'q8_0' = { pp = 1 }\n")
    (folder / "expect.toml").write_text("[expect]\n'*/q8_0 @ 5' = { cliff = 'pp' }\n")
    (folder / "torn.toml").write_text("[budgets\n")
    (folder / "typo.toml").write_text("typess = ['f16']\n")
    (folder / "typo2.toml").write_text("[budgets.'q8_0/*']\nkl_men = 1\n")
    (folder / "typo3.toml").write_text("[floors]\n'*/*' = { slowdwn = 0.1 }\n")
    (folder / "typo4.toml").write_text("[expect]\n'f16/q8_0' = { substitutd = 'f16/f16' }\n")
    (folder / "hook.toml").write_text("[environment]\nKVQUANT_WORKER_HOOK = 'absent.py'\n")
    (folder / "cut.json").write_text('{"schema": "pytest-kv')
    os.mkfifo(folder / "pipe")
    bare = folder / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    options, said = CASES[case]
    words = [*SMALL, f"--kv-store={folder / 's'}", "--kv-types=f16", *options]
    with contextlib.chdir(folder):
        code = main(["doctor", *words])
    doctor = capsys.readouterr().out
    run = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-q", "--kv-matrix", *words)
    errors = [line for line in run.errlines if line.startswith("ERROR: ")]
    assert run.ret == pytest.ExitCode.USAGE_ERROR, "\n".join(run.outlines + run.errlines)
    assert len(errors) == 1
    assert said in errors[0]
    assert code == 1, doctor
    wrong = [line for line in doctor.splitlines() if line.startswith("✗")]
    assert len(wrong) == 1, doctor
    assert said in wrong[0] or (options[0] == "--kv-pairs=q8_0/i32" and "i32" in wrong[0])
    assert "A run would not start" in doctor
    for word in ("Traceback", "INTERNALERROR", 'File "'):
        assert word not in "\n".join(run.outlines + run.errlines)


def test_the_types_that_the_library_has_are_listed(folder: Path, pytester: pytest.Pytester) -> None:
    run = pytester.runpytest_inprocess("--kv-matrix", *SMALL, "--kv-types=f16,q9_0")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    (error,) = [line for line in run.errlines if line.startswith("ERROR: ")]
    for name in ("f16", "q8_0", "q5_1", "q4_0"):
        assert name in error.partition("It has:")[2].replace(",", "").rstrip(".").split()


def test_a_context_longer_than_trained_is_a_warning(tmp_path: Path) -> None:
    model = write(
        tmp_path / "m.gguf",
        Tiny(n_vocab=300, n_embd=32, n_head=1, n_head_kv=1, head_dim=32, n_ff=32, n_ctx=48),
    )
    run = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, f"--kv-model={model}", "--kv-pairs=f16/f16",
        f"--kv-store={tmp_path / 's'}", "-k", "test_measured or test_kl_divergence", "-q",
    )  # fmt: skip
    assert run.code == 0, run.text
    assert "--kv-ctx 64 exceeds the 48 tokens that tiny-qwen3 was trained for" in run.text
    assert "figures on it mean nothing" in run.text, "weights by chance say nothing of a text"


@pytest.fixture(scope="module")
def odd_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = Tiny(n_vocab=300, n_embd=32, n_layer=1, n_head=1, n_head_kv=1, head_dim=80, n_ff=32)
    return write(tmp_path_factory.mktemp("odd") / "odd.gguf", shape)


def test_what_shows_only_in_a_cell_fails_that_cell(tmp_path: Path, odd_heads: Path) -> None:
    """A block of 32 does not divide heads of 80; the reference, and f16 with itself, do work."""
    run = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, f"--kv-model={odd_heads}", "--kv-pairs=q8_0/f16",
        f"--kv-store={tmp_path / 's'}", "-v", "-k", "test_measured or test_kl_divergence",
    )  # fmt: skip
    assert run.code == 1, run.text
    assert "test_measured[f16/f16] PASSED" in run.text
    assert "test_measured[q8_0/f16] FAILED" in run.text
    assert (
        "test_kl_divergence[q8_0/f16] SKIPPED (q8_0/f16 was not measured: unsupported)" in run.text
    )
    assert "q8_0/f16: unsupported. llama.cpp makes no context for K q8_0, V f16" in run.text
    assert "80" in run.text
    assert "Traceback" not in run.text
    assert "1 failed" in run.counts


def test_a_pair_that_the_library_rules_out_and_nobody_named_is_skipped(
    tmp_path: Path, odd_heads: Path
) -> None:
    options = (
        "--kv-matrix", *SMALL, f"--kv-model={odd_heads}", "--kv-types=f16,q8_0",
        f"--kv-store={tmp_path / 's'}", "-v", "-k",
        "test_measured or test_kl_divergence or test_kv_footprint or decode_speed",
    )  # fmt: skip
    report = tmp_path / "r.json"
    run = pytest_in(tmp_path, *options, f"--kv-json={report}")
    assert run.code == 0, run.text
    assert "test_measured[f16/f16] PASSED" in run.text
    assert "test_measured[q8_0/f16] SKIPPED (q8_0/f16: unsupported." in run.text
    result = json.loads(report.read_text())
    excused = {cell["pair"]: cell.get("excused", False) for cell in result["cells"]}
    assert excused == {"f16/f16": False, "f16/q8_0": True, "q8_0/f16": True, "q8_0/q8_0": True}
    strict = pytest_in(tmp_path, *options, "--kv-strict")
    assert strict.code == 1
    assert "test_measured[q8_0/f16] FAILED" in strict.text


def test_a_store_that_is_too_small_costs_cells_not_the_run(tmp_path: Path) -> None:
    run = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, "--kv-pairs=q4_0/f16", "--kv-store-limit=0.000001",
        f"--kv-store={tmp_path / 's'}", f"--kv-json={tmp_path / 'r.json'}", "-q",
    )  # fmt: skip
    assert run.code == 1, run.text
    assert "more than --kv-store-limit 1e-06 GB; raise it" in run.text
    assert "Traceback" not in run.text
    assert "INTERNALERROR" not in run.text
    assert "2 failed" in run.counts
    assert '"verdict": "no-reference"' in (tmp_path / "r.json").read_text()


def test_the_packaged_corpus_has_what_the_defaults_take() -> None:
    assert len(EMBEDDED_CORPUS.read_bytes()) >= 64 << 10
