"""Files that people give for a model and that are none, or none that has a KV cache to judge.

Each is told by what it is; what to give instead is in the same sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pytest_kvquant.inputs.gguf_header import Value
from pytest_kvquant.inputs.header_fields import Fields

_OPENINGS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"version https://git-lfs.github.com/spec/",
     "is a Git LFS pointer, not the file that it points to; fetch it with: git lfs pull"),
    (b"<!DOCTYPE", "is a web page; the download was answered with a page instead of the file"),
    (b"<!doctype", "is a web page; the download was answered with a page instead of the file"),
    (b"<html", "is a web page; the download was answered with a page instead of the file"),
    (b"lmgg", "is in the GGML format of before GGUF; convert it again or download a GGUF file"),
    (b"fmgg", "is in the GGML format of before GGUF; convert it again or download a GGUF file"),
    (b"tjgg", "is in the GGJT format of before GGUF; convert it again or download a GGUF file"),
    (b"PK\x03\x04", "is a PyTorch checkpoint or another zip archive; convert it to GGUF with "
     "llama.cpp's convert_hf_to_gguf.py"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it"),
)  # fmt: skip

ENCODERS: Final = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert",
     "neo-bert", "eurobert", "gemma-embedding", "llama-embed", "t5encoder"}
)  # fmt: skip
"""Architectures that compute embeddings."""

DIFFUSION: Final = frozenset({"dream", "llada", "llada-moe", "rnd1"})
"""They fill in all tokens at once; llama.cpp makes no KV cache for them."""

DRAFTS: Final = frozenset({"eagle3", "dflash", "gemma4-assistant"})
"""Heads that guess for another model, and read its states."""

SPEECH: Final = frozenset({"wavtokenizer-dec", "pockettts", "qwen3tts"})

STATE_ONLY: Final = frozenset(
    {"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"}
)  # fmt: skip
"""They keep a state of fixed size in every layer."""

_KINDS: Final[Mapping[str, str]] = {
    "adapter": "is an adapter (LoRA), which changes a model; give the model itself",
    "mmproj": "is a multimodal projector (mmproj), which feeds a model; give the model itself",
    "imatrix": "is an importance matrix; give the model that it was computed for",
    "dataset": "is a data set; give a model",
}
"""What ``general.type`` says a file is."""

_ARCHITECTURES: Final[Mapping[str, str]] = {
    "clip": _KINDS["mmproj"],
    "controlvector": "is a control vector, which steers a model; give the model itself",
    "t5": "is an encoder with a decoder; its cache is not that of a text-generating model",
    **dict.fromkeys(
        ENCODERS,
        "computes embeddings, not next-token probabilities; KV-cache quality needs a "
        "text-generating model",
    ),
    **dict.fromkeys(
        DIFFUSION,
        "is a diffusion model: it fills in all tokens at once and llama.cpp makes no KV cache for "
        "it; give a model that writes from left to right",
    ),
    **dict.fromkeys(
        DRAFTS,
        "is a draft model, which reads the states of the model that it guesses for; give that one",
    ),
    **dict.fromkeys(
        SPEECH, "generates sound, not text; KV-cache quality needs a text-generating model"
    ),
    **dict.fromkeys(
        STATE_ONLY,
        "keeps a state of fixed size and no KV cache, so no cache type applies to it; give a model "
        "with attention layers",
    ),
}


def opening(head: bytes) -> str | None:
    """What a file is that begins with ``head`` and is not GGUF, as the end of a sentence."""
    for start, what in _OPENINGS:
        if head.startswith(start):
            return what
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30:
        return "is a safetensors file; convert it to GGUF with llama.cpp's convert_hf_to_gguf.py"
    return None


def kind(fields: Mapping[str, Value], architecture: str, tensors: Sequence[object]) -> str | None:
    """Why a GGUF file is no model to judge, as the end of a sentence; ``None``: it is one.

    Raises:
        BadHeader: a field that tells has another type than it should.
    """
    of = Fields(fields, architecture)
    told = _KINDS.get(str(of.text("general.type") or "model"))
    if told or (told := _ARCHITECTURES.get(architecture)):
        return told
    if not of.flag("{arch}.attention.causal", True) or of.count("{arch}.pooling_type", 0) != 0:
        return _ARCHITECTURES["bert"]
    if not tensors and any(key.startswith("tokenizer.") for key in fields):
        return "holds a vocabulary and no weights; give the model's own file"
    if not tensors:
        return "has no weights; download or convert it again"
    return None
