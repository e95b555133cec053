"""Names of the kernel's gates, each beside the absolute gate of the same figure."""

from __future__ import annotations

KERNEL_GATES = {
    "kl_mean": "kl_ratio",
    "kl_tail": "kl_tail_ratio",
    "ln_ppl_ratio": "ln_ppl_shift",
    "top1_flips": "top1_flips_ratio",
    "decode_kl_mean": "decode_kl_ratio",
}
"""The absolute gate of a figure, and the one of its ratio to the healthy cell's."""

TITLES = {
    "kl_ratio": "mean KL over the healthy cell's",
    "kl_tail_ratio": "KL tail over the healthy cell's",
    "ln_ppl_shift": "ln PPL beside the healthy cell's",
    "top1_flips_ratio": "decisive top-1 flips over the healthy cell's",
    "decode_kl_ratio": "mean KL by the decode path over the healthy cell's",
}
"""What they are called in a sentence."""
