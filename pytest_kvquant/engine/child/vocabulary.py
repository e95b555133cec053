"""Child side: text to tokens and back, and what a model says of how it is spoken to."""

from __future__ import annotations

import ctypes

import numpy as np

from pytest_kvquant.engine.child.llama import Address, Llama
from pytest_kvquant.numerics.arrays import I32


class Refused(Exception):
    """llama.cpp returned no model or no context; why is in its log."""


class ModelVocabulary:
    """The part of a loaded model that knows its tokens."""

    llama: Llama
    pointer: Address
    vocab: Address
    vocabulary: int
    add_bos: bool

    def tokenize(self, text: bytes, *, special: bool = False) -> I32:
        """All tokens of a text, BOS first where the model wants one; shape ``(n,)``.

        Args:
            special: whether the words of a chat template's markers are their tokens.
        """
        room = len(text) + 8
        tokens = np.empty(room, np.int32)
        pointer = tokens.ctypes.data_as(ctypes.POINTER(self.llama.llama_token))
        count = self.llama.llama_tokenize(
            self.vocab, text, len(text), pointer, room, self.add_bos, special
        )
        if count < 0:
            raise Refused(f"llama.cpp does not tokenize this text (code {count})")
        return tokens[:count].copy()

    def detokenize(self, tokens: I32) -> bytes:
        """The text of tokens, UTF-8, markers left out."""
        words = np.ascontiguousarray(tokens, np.int32)
        pointer = words.ctypes.data_as(ctypes.POINTER(self.llama.llama_token))
        room = 16 * len(words) + 64
        for _ in range(2):
            text = ctypes.create_string_buffer(room)
            count = self.llama.llama_detokenize(
                self.vocab, pointer, len(words), text, room, False, False
            )
            if count >= 0:
                break
            room = -count
        return text.raw[: max(0, count)]

    def control_tokens(self) -> I32:
        """Tokens that end a text or are no text, shape ``(n,)``."""
        llama, vocab = self.llama, self.vocab
        return np.array(
            [
                token
                for token in range(self.vocabulary)
                if llama.llama_vocab_is_eog(vocab, token)
                or llama.llama_vocab_is_control(vocab, token)
            ],
            np.int32,
        )

    def chat_template(self) -> str | None:
        """The Jinja template that the model brings, if it does."""
        found = self.llama.llama_model_chat_template(self.pointer, None)
        return found.decode("utf-8", errors="replace") if found else None

    def marker_texts(self) -> dict[str, str]:
        """What a chat template calls ``bos_token`` and ``eos_token``; empty where there is none."""
        llama = self.llama
        ids = {"bos": llama.llama_vocab_bos(self.vocab), "eos": llama.llama_vocab_eos(self.vocab)}
        return {
            name: llama.llama_vocab_get_text(self.vocab, token).decode("utf-8", errors="replace")
            if token >= 0
            else ""
            for name, token in ids.items()
        }
