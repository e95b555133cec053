"""Files that are no model: each its own sentence, and what to give instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvquant.inputs import strange
from pytest_kvquant.inputs.gguf_header import BadHeader
from pytest_kvquant.inputs.shards import name_of, part_of, siblings

TENSORS = (object(),)
VOCABULARY = {"tokenizer.ggml.model": "gpt2"}


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"<html><body>404", "a web page"),
        (b"tjgg\x03\x00\x00\x00", "the GGJT format of before GGUF"),
        (b"PK\x03\x04archive/data.pkl", "a PyTorch checkpoint"),
        (b'\x30\x12\x00\x00\x00\x00\x00\x00{"__metadata__"', "a safetensors file"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
    ],
)
def test_openings(head: bytes, what: str) -> None:
    assert what in (strange.opening(head) or "")


def test_an_opening_of_nothing_known() -> None:
    assert strange.opening(b"hello, world") is None
    assert strange.opening(b"") is None


@pytest.mark.parametrize(
    ("architecture", "fields", "what"),
    [
        ("llama", {"general.type": "adapter", "adapter.type": "lora"}, "is an adapter (LoRA)"),
        ("clip", {"general.type": "mmproj"}, "is a multimodal projector (mmproj)"),
        ("clip", {}, "is a multimodal projector (mmproj)"),
        ("llama", {"general.type": "imatrix"}, "is an importance matrix"),
        ("controlvector", {}, "is a control vector"),
        ("bert", {}, "computes embeddings, not next-token probabilities"),
        ("qwen3", {"qwen3.pooling_type": 3}, "computes embeddings"),
        ("llama", {"llama.attention.causal": False}, "computes embeddings"),
        ("t5encoder", {}, "computes embeddings"),
        ("t5", {}, "is an encoder with a decoder"),
        ("llada", {}, "is a diffusion model"),
        ("eagle3", {}, "is a draft model"),
        ("wavtokenizer-dec", {}, "generates sound, not text"),
        ("mamba2", {}, "keeps a state of fixed size and no KV cache"),
        ("rwkv7", {}, "keeps a state of fixed size and no KV cache"),
    ],
)
def test_kinds(architecture: str, fields: dict[str, object], what: str) -> None:
    assert what in (strange.kind(fields, architecture, TENSORS) or "")  # type: ignore[arg-type]


def test_a_model_is_none_of_these() -> None:
    assert strange.kind({"general.type": "model"}, "llama", TENSORS) is None
    assert strange.kind({}, "qwen35moe", TENSORS) is None


def test_a_file_without_weights() -> None:
    assert "holds a vocabulary and no weights" in str(strange.kind(VOCABULARY, "llama", ()))
    assert strange.kind({}, "llama", ()) == "has no weights; download or convert it again"


class TestShards:
    def make(self, folder: Path, *numbers: int, of: int = 3) -> list[Path]:
        files = [folder / name_of("model", number, of) for number in numbers]
        for file in files:
            file.touch()
        return files

    def test_all_of_a_split_model_in_order(self, tmp_path: Path) -> None:
        files = self.make(tmp_path, 3, 1, 2)
        assert siblings(files[0], 3) == tuple(sorted(files))
        assert siblings(files[0], 0) == (files[0],)
        assert part_of(files[0]) == ("model", 3, 3)
        assert part_of(Path("model.gguf")) is None

    def test_missing_ones_are_named(self, tmp_path: Path) -> None:
        (first,) = self.make(tmp_path, 1)
        with pytest.raises(BadHeader, match=r"one of 3 files .*model-00002-of-00003\.gguf, model-"
                           r"00003-of-00003\.gguf are missing"):  # fmt: skip
            siblings(first, 3)
        self.make(tmp_path, 2)
        with pytest.raises(BadHeader, match=r"model-00003-of-00003\.gguf is missing"):
            siblings(first, 3)
        (many,) = self.make(tmp_path, 1, of=9)
        with pytest.raises(BadHeader, match="and 5 more are missing"):
            siblings(many, 9)

    def test_a_renamed_shard(self, tmp_path: Path) -> None:
        with pytest.raises(BadHeader, match=r"was renamed; llama\.cpp finds the others"):
            siblings(tmp_path / "best-model.gguf", 3)

    def test_a_lying_count(self, tmp_path: Path) -> None:
        with pytest.raises(BadHeader, match="claims to be split into 5,000 files"):
            siblings(tmp_path / name_of("model", 1, 5000), 5000)
