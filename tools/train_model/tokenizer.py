"""From text to tokens: a byte-level BPE that splits as GPT-2 does."""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
PRE_TOKENIZER = "gpt-2"
"""llama.cpp's name of the splitting expression in ``pre_tokenizers.ByteLevel``"""

DOCUMENT_SEPARATOR = "\n\0\n"


def read_documents(path: Path) -> list[str]:
    """Read a corpus whose documents are separated by a line with one NUL; ``.xz`` is unpacked."""
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8")
    return [document for document in text.split(DOCUMENT_SEPARATOR) if document.strip()]


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> Tokenizer:
    """Learn a vocabulary: the end of text, the 256 bytes, then the merges by frequency."""
    tokenizer = _byte_level(models.BPE())
    tokenizer.train_from_iterator(
        documents,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"the corpus yields {tokenizer.get_vocab_size()} entries, not {vocab_size}: "
            "give more text or ask for a smaller vocabulary"
        )
    return tokenizer


def restore_tokenizer(tokens: Sequence[str], merges: Sequence[str]) -> Tokenizer:
    """Build the tokenizer back from the two lists that a GGUF file carries."""
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = _byte_level(models.BPE(vocab=vocab, merges=pairs))
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.encode_special_tokens = True  # a literal <|endoftext|> in a text is text
    return tokenizer


def tokens_of(tokenizer: Tokenizer) -> list[str]:
    """List the vocabulary in the order of its ids."""
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.__getitem__)


def merges_of(tokenizer: Tokenizer) -> list[str]:
    """List the merges, most frequent first, each as ``left right``."""
    return [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def encode_stream(tokenizer: Tokenizer, documents: Sequence[str]) -> Tensor:
    """Put the documents in a row, each behind an end of text: int64 ``[tokens]``."""
    stream: list[int] = []
    for encoding in tokenizer.encode_batch(documents):
        stream.append(END_OF_TEXT_ID)
        stream.extend(encoding.ids)
    return torch.tensor(stream, dtype=torch.int64)
