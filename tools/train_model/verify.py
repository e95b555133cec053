"""Check a file against llama.cpp: the same tokens, and the same logits for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from . import gguf_file

Logits = npt.NDArray[np.float32]

LEAST_CORRELATION = 0.999
GGML_TYPE_F32 = 0
"""the cache type that rounds nothing"""


@dataclass(frozen=True)
class Agreement:
    """How close llama.cpp and this recipe are on one text."""

    tokens: int
    same_tokens: bool
    """both tokenizers gave the same ids"""
    max_difference: float
    """largest absolute difference of two logits"""
    rms_difference: float
    """root mean square of the differences"""
    correlation: float
    """Pearson's, over all logits"""
    same_top: float
    """share of positions with the same argmax"""

    @property
    def good(self) -> bool:
        """Whether llama.cpp computes this model, but for rounding."""
        return self.same_tokens and self.correlation >= LEAST_CORRELATION

    def __str__(self) -> str:
        return (
            f"{self.tokens} tokens, {'the same' if self.same_tokens else 'OTHERS'} in llama.cpp; "
            f"logits: max difference {self.max_difference:.2e}, rms {self.rms_difference:.2e}, "
            f"correlation {self.correlation:.7f}, same top {self.same_top:.2%}"
        )


def verify(path: Path, text: str, n_tokens: int) -> Agreement:
    """Compare both on the first ``n_tokens`` tokens of ``text``."""
    model, shape, tokenizer = gguf_file.load(path)
    n_tokens = min(n_tokens, shape.n_ctx)
    tokens = tokenizer.encode(text).ids
    their_tokens, theirs = _llama_cpp(path, text, n_tokens)
    with torch.inference_mode():
        ours = model(torch.tensor([their_tokens[:n_tokens]]))[0].numpy()
    difference = np.abs(ours - theirs)
    return Agreement(
        tokens=len(theirs),
        same_tokens=tokens == their_tokens,
        max_difference=float(difference.max()),
        rms_difference=float(np.sqrt(np.mean(difference**2, dtype=np.float64))),
        correlation=float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]),
        same_top=float(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1))),
    )


def _llama_cpp(path: Path, text: str, n_tokens: int) -> tuple[list[int], Logits]:
    """All tokens of the text, and the logits ``[n_tokens, vocab_size]`` of the first ones."""
    from llama_cpp import Llama

    threads = torch.get_num_threads()
    llama = Llama(
        str(path),
        n_ctx=n_tokens,
        n_batch=n_tokens,
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=True,
        type_k=GGML_TYPE_F32,
        type_v=GGML_TYPE_F32,
        verbose=False,
    )
    tokens = llama.tokenize(text.encode("utf-8"), add_bos=False)
    llama.eval(tokens[:n_tokens])
    return tokens, np.array(llama.scores[: llama.n_tokens], dtype=np.float32)
