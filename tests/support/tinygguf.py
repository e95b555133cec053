"""Write tiny random-weight GGUF models that llama.cpp loads: for shapes of caches, not language.

Three families, by the kind of memory that the library makes for them:

- ``qwen3``: one attention cache; any number of heads and any head dimension;
- ``gemma3``: a full cache and a sliding-window cache (every ``window_period``-th layer is full);
- ``lfm2``: a hybrid; layers that are not attention layers keep a short convolution state instead.

The same arguments always give the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, get_args

import gguf
import numpy as np
import numpy.typing as npt

Arch = Literal["qwen3", "gemma3", "lfm2"]
F32 = npt.NDArray[np.float32]

EPSILON: Final = 1e-6
CONV_WIDTH: Final = 3
LEAST_VOCAB: Final = 1 + 256 + 1
CONTROL, NORMAL, UNUSED = 3, 1, 5
"""Token types of GGUF."""


@dataclass(frozen=True)
class Tiny:
    """Shape of one model."""

    arch: Arch = "qwen3"
    n_layer: int = 2
    n_embd: int = 64
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 128
    n_ff: int = 128
    n_vocab: int = 512
    n_ctx: int = 4096
    window: int = 64
    """Sliding window, in tokens (gemma3)."""
    window_period: int = 2
    """One layer in so many has the full cache (gemma3)."""
    attention_period: int = 2
    """One layer in so many is an attention layer, the rest are convolutions (lfm2)."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what the library would refuse later, or crash on."""
        if self.arch not in get_args(Arch):
            raise ValueError(f"arch {self.arch!r}: one of {', '.join(get_args(Arch))}")
        if self.n_head % self.n_head_kv:
            raise ValueError(
                f"{self.n_head} query heads do not divide into {self.n_head_kv} KV heads"
            )
        if self.arch == "lfm2" and self.n_head * self.head_dim != self.n_embd:
            raise ValueError(
                f"lfm2 needs n_embd = n_head * head_dim = {self.n_head * self.head_dim}, "
                f"not {self.n_embd}"
            )
        if self.n_vocab < LEAST_VOCAB:
            raise ValueError(
                f"n_vocab {self.n_vocab}: end of text, bytes and a merge need {LEAST_VOCAB}"
            )

    def is_attention(self, layer: int) -> bool:
        """Whether this layer has a KV cache."""
        return self.arch != "lfm2" or layer % self.attention_period == self.attention_period - 1


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary, token 0 being the end of text."""

    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]


def byte_letters() -> list[str]:
    """The 256 letters that stand for bytes in GPT-2's vocabularies, in byte order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(rest)) for byte in range(256)]


def byte_vocabulary(size: int) -> Vocabulary:
    """Bytes, one merge (the library refuses an empty list), and unused entries up to *size*."""
    letters = byte_letters()
    merges = [f"{letters[0x20]} {letters[ord('t')]}"]
    words = ["<|endoftext|>", *letters, *(merge.replace(" ", "") for merge in merges)]
    filler = [f"<|unused{n}|>" for n in range(size - len(words))]
    return Vocabulary(
        [*words, *filler], [CONTROL, *[NORMAL] * (len(words) - 1), *[UNUSED] * len(filler)], merges
    )


def copied_vocabulary(model: Path, size: int) -> Vocabulary:
    """The first *size* entries of the vocabulary of *model*, with the merges that they need."""
    reader = gguf.GGUFReader(model)
    tokens, types, merges = (
        reader.fields[f"tokenizer.ggml.{name}"].contents()
        for name in ("tokens", "token_type", "merges")
    )
    filler = [f"<|unused{n}|>" for n in range(size - len(tokens))]
    kept = [*tokens[:size], *filler]
    known = frozenset(kept)
    needed = [merge for merge in merges if merge.replace(" ", "") in known]
    return Vocabulary(kept, [*types[:size], *[UNUSED] * len(filler)], needed)


def tensor_shapes(shape: Tiny) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names of the tensors with NumPy shapes (output features first)."""
    yield "token_embd.weight", (shape.n_vocab, shape.n_embd)
    yield (
        ("token_embd_norm" if shape.arch == "lfm2" else "output_norm") + ".weight",
        (shape.n_embd,),
    )
    for layer in range(shape.n_layer):
        block = attention_shapes(shape) if shape.is_attention(layer) else convolution_shapes(shape)
        for name, dims in (*block, *feed_forward_shapes(shape)):
            yield f"blk.{layer}.{name}.weight", dims


def attention_shapes(shape: Tiny) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors of one attention block."""
    queries, keys = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    yield "attn_norm", (shape.n_embd,)
    yield "attn_q", (queries, shape.n_embd)
    yield "attn_k", (keys, shape.n_embd)
    yield "attn_v", (keys, shape.n_embd)
    yield "attn_output", (shape.n_embd, queries)
    yield "attn_q_norm", (shape.head_dim,)
    yield "attn_k_norm", (shape.head_dim,)
    if shape.arch == "gemma3":
        yield "post_attention_norm", (shape.n_embd,)


def convolution_shapes(shape: Tiny) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors of one short convolution (lfm2)."""
    yield "attn_norm", (shape.n_embd,)
    yield "shortconv.conv", (shape.n_embd, CONV_WIDTH)
    yield "shortconv.in_proj", (3 * shape.n_embd, shape.n_embd)
    yield "shortconv.out_proj", (shape.n_embd, shape.n_embd)


def feed_forward_shapes(shape: Tiny) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors of one gated feed-forward block."""
    yield "ffn_norm", (shape.n_embd,)
    yield "ffn_gate", (shape.n_ff, shape.n_embd)
    yield "ffn_up", (shape.n_ff, shape.n_embd)
    yield "ffn_down", (shape.n_embd, shape.n_ff)
    if shape.arch == "gemma3":
        yield "post_ffw_norm", (shape.n_embd,)


def weights(rng: np.random.Generator, name: str, dims: tuple[int, ...]) -> npt.NDArray[np.floating]:
    """Ones for a norm; normal values of variance 1 / fan-in, half precision, for a matrix."""
    if len(dims) == 1:
        return np.ones(dims, np.float32)
    values = rng.standard_normal(dims, np.float32) / np.float32(np.sqrt(dims[-1]))
    return values if "shortconv.conv" in name else values.astype(np.float16)


def add_shape(writer: gguf.GGUFWriter, shape: Tiny) -> None:
    """Write the keys that describe the network."""
    heads_kv = [
        shape.n_head_kv if shape.is_attention(layer) else 0 for layer in range(shape.n_layer)
    ]
    writer.add_name(f"tiny-{shape.arch}")
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(heads_kv if shape.arch == "lfm2" else shape.n_head_kv)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(EPSILON)
    if shape.arch == "gemma3":
        writer.add_sliding_window(shape.window)
        writer.add_sliding_window_pattern(shape.window_period)
    if shape.arch == "lfm2":
        writer.add_shortconv_l_cache(CONV_WIDTH)


def add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write the tokenizer's keys."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.types))
    writer.add_token_merges(list(vocabulary.merges))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def write(path: Path, shape: Tiny, tokenizer: Path | None = None) -> Path:
    """Write the model to *path*; with *tokenizer*, the vocabulary is the head of that model's."""
    vocabulary = (
        copied_vocabulary(tokenizer, shape.n_vocab) if tokenizer else byte_vocabulary(shape.n_vocab)
    )
    rng = np.random.default_rng(shape.seed)
    writer = gguf.GGUFWriter(path, shape.arch)
    add_shape(writer, shape)
    add_vocabulary(writer, vocabulary)
    for name, dims in tensor_shapes(shape):
        writer.add_tensor(name, weights(rng, name, dims))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def main() -> None:
    """One option per field of `Tiny`."""
    parser = argparse.ArgumentParser(description="Write a tiny random-weight GGUF model.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="GGUF model whose vocabulary is copied")
    for field in fields(Tiny):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(
            option, type=str if field.name == "arch" else int, default=field.default
        )
    arguments = vars(parser.parse_args())
    path, tokenizer = arguments.pop("path"), arguments.pop("tokenizer")
    write(path, Tiny(**arguments), tokenizer)


if __name__ == "__main__":
    main()
