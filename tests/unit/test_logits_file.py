"""Files of llama-perplexity --save-all-logits: read as they are written, refused where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_kvquant.inputs.logits_file import LogitsFile, LogitsFileError, write

CTX, VOCABULARY, CHUNKS = 16, 33, 3
SCORED = CTX - 1 - CTX // 2


@pytest.fixture
def made() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    tokens = random.integers(0, VOCABULARY, (CHUNKS, CTX), dtype=np.int32)
    logits = random.normal(0, 3, (CHUNKS, SCORED, VOCABULARY)).astype(np.float32)
    return tokens, logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_rows_are_the_log_probabilities_within_half_a_step(tmp_path: Path, made) -> None:
    tokens, logits = made
    write(tmp_path / "l.bin", tokens, logits)
    file = LogitsFile(tmp_path / "l.bin")
    assert (file.ctx, file.vocabulary, file.chunks, file.scored) == (
        CTX,
        VOCABULARY,
        CHUNKS,
        SCORED,
    )
    for chunk in range(CHUNKS):
        exact = log_softmax(logits[chunk])
        off = np.abs(file.rows(chunk, 0, SCORED) - np.maximum(exact, exact.max(-1)[:, None] - 16))
        assert off.max() <= 16 / 65535
    assert file.step() <= 16 / 65535 * 1.01


def test_what_lies_16_nats_below_the_largest_is_clamped(tmp_path: Path, made) -> None:
    tokens, logits = made
    logits[0, 0, :] = 0.0
    logits[0, 0, 3] = 40.0
    write(tmp_path / "l.bin", tokens, logits)
    row = LogitsFile(tmp_path / "l.bin").rows(0, 0, 1)[0]
    assert row[3] == pytest.approx(0, abs=1e-3)
    assert row[4] == pytest.approx(-16, abs=1e-3)


def test_a_chunk_is_found_by_its_tokens(tmp_path: Path, made) -> None:
    tokens, logits = made
    write(tmp_path / "l.bin", tokens, logits)
    file = LogitsFile(tmp_path / "l.bin")
    assert [file.find(one) for one in tokens] == [0, 1, 2]
    with_bos = tokens[1].copy()
    with_bos[0] = 2  # put there when the chunk is evaluated, not into the file
    assert file.find(with_bos) == 1
    assert file.find(tokens[0][::-1]) is None
    assert file.find(tokens[0][:-1]) is None


def test_files_that_lie_are_refused_in_a_sentence(tmp_path: Path, made) -> None:
    path = tmp_path / "l.bin"
    write(path, *made)
    whole = path.read_bytes()
    for data, says in (
        (b"GGUF" + whole[4:], "does not begin with _logits_"),
        (whole[:-10], "is cut off"),
        (whole[:9], "does not begin"),
        (whole[:8] + b"\0" * 12 + whole[20:], "names 0 chunks of 0 tokens"),
    ):
        path.write_bytes(data)
        with pytest.raises(LogitsFileError, match=says):
            LogitsFile(path)
    with pytest.raises(LogitsFileError, match="cannot be read"):
        LogitsFile(tmp_path / "none")
