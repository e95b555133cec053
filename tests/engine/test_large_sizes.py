"""Sizes beyond 2**31 logits: 64-bit arithmetic on the whole road, and bounded memory."""

from __future__ import annotations

import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from support import parent_memory
from support.run import cells_of, measure
from support.tinygguf import Tiny, write

from pytest_kvquant.quality.evidence_file import read_folder

PAIR = "q8_0/f16"
VOCABULARY = 248_320
CTX = 16_384
SCORED = 8_700
"""8,700 × 248,320 logits are more than 2**31."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_context_of_more_than_two_billion_logits(tmp_path: Path) -> None:
    assert SCORED * VOCABULARY > 1 << 31
    if shutil.disk_usage(tmp_path).free < 12e9:
        pytest.skip("12 GB of disk are needed for the reference")
    model, corpus = tmp_path / "big.gguf", tmp_path / "corpus.txt"
    write(model, Tiny(n_vocab=VOCABULARY, n_embd=32, head_dim=64, n_layer=1, n_head=1, n_head_kv=1))
    corpus.write_bytes(bytes(32 + (7 * at * at + at // 3) % 90 for at in range(2 * CTX)))
    shared = {
        "model": model, "corpus": (str(corpus),), "ctx": CTX, "chunks": 1, "order": "sequential",
        "decode": 0, "trajectory": 0,
    }  # fmt: skip
    whole = measure(tmp_path, PAIR, scored=SCORED, evidence=tmp_path / "whole", **shared)
    assert cells_of(whole)["f16/f16"].verdict == "pass"
    measure(tmp_path, PAIR, scored=64, evidence=tmp_path / "tail", **shared)
    all_tokens, last_tokens = (kl_of(tmp_path / name) for name in ("whole", "tail"))
    assert all_tokens.shape == (1, SCORED)
    assert np.array_equal(all_tokens[:, -64:], last_tokens)
    assert 0 < last_tokens.mean() < 1
    unit = 1 if sys.platform == "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit < 2e9


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="mapped files are told apart on Linux")
def test_the_parent_takes_a_gigabyte_and_a_half_at_most_however_many_chunks(tmp_path: Path) -> None:
    """At 248,320 entries and chunks of 4,096 tokens, beside the maps: 2 GB of f16's logits each."""
    if shutil.disk_usage(tmp_path).free < 12e9:
        pytest.skip("12 GB of disk are needed for the reference")
    model, corpus = tmp_path / "big.gguf", tmp_path / "corpus.txt"
    write(model, Tiny(n_vocab=VOCABULARY, n_embd=32, head_dim=64, n_layer=1, n_head=1, n_head_kv=1))
    corpus.write_bytes(bytes(32 + (7 * at * at + at // 3) % 90 for at in range(4 * 4096)))
    options = (
        "--kv-model", str(model), "--kv-corpus", str(corpus), "--kv-ctx", "4096",
        "--kv-pairs", PAIR,
        "--kv-speed", "off", "--kv-probe", "off", "--kv-coverage", "off", "--kv-recall", "0",
    )  # fmt: skip
    peaks = []
    for chunks in (1, 3):
        found = parent_memory.measure(tmp_path / str(chunks), *options, "--kv-chunks", str(chunks))
        assert cells_of(found.result)[PAIR].quality is not None
        shutil.rmtree(tmp_path / str(chunks))
        peaks.append(found.peak)
    assert max(peaks) <= 1.5e9, peaks
    assert peaks[1] <= 1.1 * peaks[0], peaks


def kl_of(folder: Path) -> npt.NDArray[np.float64]:
    kept = next(one for one in read_folder(folder) if one.conditions.pair == PAIR)
    return np.asarray(kept.columns.kl)
