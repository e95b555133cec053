"""Sizes beyond 2**31 logits: 64-bit arithmetic on the whole road, and bounded memory."""

from __future__ import annotations

import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
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
        "model": model, "corpus": corpus, "ctx": CTX, "chunks": 1, "order": "sequential",
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


def kl_of(folder: Path) -> npt.NDArray[np.float64]:
    kept = next(one for one in read_folder(folder) if one.conditions.pair == PAIR)
    return np.asarray(kept.columns.kl)
