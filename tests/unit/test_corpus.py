"""Text to tokens to chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.errors import CorpusError
from pytest_kvquant.inputs.corpus import cut_chunks, read_corpus

TOKENS = np.arange(1000, dtype=np.int32)


def cut(
    ctx: int, wanted: int, *, exact: bool = False, order: str = "sequential", seed: int = 0
) -> tuple[list[list[int]], list[int]]:
    chunks, numbers = cut_chunks(
        TOKENS, ctx=ctx, wanted=wanted, exact=exact, order=order, seed=seed, name="essay"
    )
    return chunks.tolist(), numbers.tolist()


class TestReading:
    def test_bytes_and_name(self, tmp_path: Path) -> None:
        (tmp_path / "é.txt").write_bytes("naïve\r\n".encode())
        found = read_corpus(tmp_path / "é.txt")
        assert (found.text, found.name) == ("naïve\r\n".encode(), "é")

    def test_the_fingerprint_is_of_the_text(self, tmp_path: Path) -> None:
        for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
            (tmp_path / name).write_text(text)
        a, b, c = (read_corpus(tmp_path / name).fingerprint for name in "abc")
        assert a == b != c

    @pytest.mark.parametrize("content", [b"", b" \n\t "])
    def test_empty(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_bytes(content)
        with pytest.raises(CorpusError, match=r"c\.txt is empty; give a UTF-8 text with"):
            read_corpus(tmp_path / "c.txt")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(CorpusError, match=r"absent does not exist; give a text file with"):
            read_corpus(tmp_path / "absent")

    def test_not_utf8_says_where(self, tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_bytes(b"caf\xe9 au lait")
        with pytest.raises(CorpusError, match=r"is not UTF-8 \(byte 3 is 0xe9\); convert it"):
            read_corpus(tmp_path / "c.txt")

    def test_a_folder_is_no_text(self, tmp_path: Path) -> None:
        with pytest.raises(CorpusError, match=r"is a folder; give a text file with --kv-corpus"):
            read_corpus(tmp_path)

    def test_a_file_that_cannot_be_read(self) -> None:
        unreadable = Path("/proc/self/mem")
        if not unreadable.is_file():
            pytest.skip("no /proc here")
        with pytest.raises(CorpusError, match=r"/proc/self/mem cannot be read"):
            read_corpus(unreadable)


class TestChunks:
    def test_sequential(self) -> None:
        chunks, numbers = cut(100, 3)
        assert numbers == [0, 1, 2]
        assert chunks[1] == list(range(100, 200))

    def test_what_is_left_at_the_end_is_dropped(self) -> None:
        chunks, _ = cut(300, 99)
        assert [len(chunk) for chunk in chunks] == [300, 300, 300]

    @given(st.integers(8, 200), st.integers(1, 60), st.integers(0, 2**40))
    def test_shuffled_draws_different_whole_chunks(self, ctx: int, wanted: int, seed: int) -> None:
        chunks, numbers = cut(ctx, wanted, order="shuffled", seed=seed)
        assert len(numbers) == len(set(numbers)) == min(wanted, 1000 // ctx)
        assert [chunk[0] for chunk in chunks] == [number * ctx for number in numbers]

    def test_a_seed_is_an_order(self) -> None:
        orders = [cut(50, 20, order="shuffled", seed=seed)[1] for seed in (0, 0, 1)]
        assert orders[0] == orders[1] != orders[2]

    def test_fewer_chunks_are_the_first_of_more(self) -> None:
        assert cut(50, 4, order="shuffled")[1] == cut(50, 20, order="shuffled")[1][:4]

    def test_the_order_of_a_seed_never_changes(self) -> None:
        """References and baselines of all users hang on it."""
        assert cut(100, 10, order="shuffled")[1] == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]

    @pytest.mark.parametrize(
        ("ctx", "wanted", "exact", "said"),
        [
            (300, 4, True, "it has 1,000 tokens, and 4 chunks of 300 tokens take 1,200"),
            (1001, 1, True, "it has 1,000 tokens, and 1 chunk of 1001 tokens take 1,001"),
            (1001, 32, False, "it has 1,000 tokens, and 1 chunk of 1001 tokens take 1,001"),
        ],
    )
    def test_too_short(self, ctx: int, wanted: int, exact: bool, said: str) -> None:
        with pytest.raises(CorpusError) as caught:
            cut(ctx, wanted, exact=exact)
        assert f"The corpus essay is too short: {said}" in str(caught.value)
        assert "--kv-ctx" in str(caught.value)
