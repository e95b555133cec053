"""The faults: name, what a person would call it, the cell it is planted in, its doses.

``nothing`` is the control: the same detour through the serialized state without a change.
"""

from __future__ import annotations

from typing import NamedTuple

Doses = tuple[float, ...]


class Fault(NamedTuple):
    """One way to be wrong."""

    name: str
    text: str
    doses: Doses
    pair: str = "q8_0/q8_0"
    seam: str = "cache"
    """Where it is planted: ``cache``, ``logits``, ``types`` or ``weights``."""
    uneven: bool = False
    """Whether some chunks are without it or nearly so: its worth is then no measure of each."""


CONTROL = Fault("nothing", "none: state out and in again", (0,))

CACHE = (
    Fault("k_scale", "K scaled by 1 + dose", (0.03, 0.1, 0.3, 1)),
    Fault("v_scale", "V scaled by 1 + dose", (0.03, 0.1, 0.3, 1)),
    Fault("swapped", "K and V swapped in dose layers", (1, 4)),
    Fault("block_off_by_one", "V one block off in a share of rows", (0.01, 0.1, 1)),
    Fault("last_block_dropped", "last block of V zero in dose layers", (1, 4)),
    Fault("half_of_v_zeroed", "half of each V head zero in dose layers", (1, 4)),
    Fault("rotation_missing", "V not rotated in dose layers", (1, 4)),
    Fault("head_sign_flipped", "sign of one V head flipped in dose layers", (1, 4)),
    Fault("heads_exchanged", "KV heads exchanged in dose layers", (1, 4)),
    Fault("layer_zeroed", "K and V zero in dose layers", (1, 4)),
    Fault("coarse", "truncated to dose steps instead of rounded to 127", (63, 31, 15)),
    Fault("wrong_position", "K of the last dose tokens one position off", (16, 64, 256)),
    Fault("stale_rows", "last dose tokens keep the chunk before", (4, 16, 64), uneven=True),
    Fault("first_tokens_lost", "first dose tokens zero", (1, 4, 64)),
    Fault("clipped", "K clipped at 1/dose of its largest value", (1.5, 3, 6)),
    Fault("noisy", "noise of dose × RMS on K and V", (0.02, 0.05, 0.1, 0.3)),
    Fault("noisy", "noise of dose × RMS on K and V", (0.1, 0.3, 1), "q4_0/q4_0"),
    Fault("drift", "noise that grows by dose with each chunk", (0.003, 0.03, 0.1), uneven=True),
    Fault(
        "later_sequences",
        "noise of dose in all sequences but the first",
        (0.1, 0.3, 1),
        uneven=True,
    ),
    Fault("one_nan", "one NaN in V of chunk number dose", (0, 7)),
)

LOGITS = (
    Fault("logits_scaled", "logits scaled by 1 + dose", (0.02, 0.05, 0.2), seam="logits"),
    Fault("next_token_known", "logit of the next token raised by dose", (0.05, 0.5), seam="logits"),
    Fault("vocabulary_end_lost", "last share of the logits zero", (0.01, 0.1), seam="logits"),
)

TAIL = Fault("tail_only", "0.5 % of tokens garbled, N(0, dose)", (0.3, 0.4, 0.6), seam="logits")

TYPES = (
    Fault("silent_q5_1", "runs as q5_1/q5_1", (1,), seam="types"),
    Fault("silent_q4_0", "runs as q4_0/q4_0", (1,), seam="types"),
    Fault("reference_quantized", "reference and cell exchanged", (1,), "f16/f16", seam="types"),
)

WEIGHTS = (
    Fault("v_weights", "attn_v scaled by 1 + dose: V of every token", (0.02, 0.1), seam="weights"),
    Fault("k_weights", "K norm scaled by 1 + dose: K of every token", (0.02, 0.1), seam="weights"),
    Fault("v_sign", "attn_v of one head negated in dose layers", (1, 4), seam="weights"),
)

BY_GATES = (*CACHE, *LOGITS, *TYPES, *WEIGHTS)
"""Faults that the gates of the prefill path must see."""

SILENT = Fault("silent_f16", "quantization off: runs as f16/f16", (1,), seam="types")
DECODE = Fault("decode_path", "noise of dose on logits of single tokens", (0.5,), seam="logits")
