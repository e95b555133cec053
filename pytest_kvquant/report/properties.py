"""The figures of a gate as properties of its test: what JUnit XML carries."""

from __future__ import annotations

from pytest_kvquant.numerics.metrics import Quality
from pytest_kvquant.results.gate import Gate

BESIDE: dict[str, tuple[str, ...]] = {
    "kl_mean": ("kl_median", "kl_p999", "kl_max"),
    "ln_ppl_ratio": ("ppl", "ppl_reference", "ppl_delta"),
    "top1_flips": ("top1",),
}
"""Figures that belong to a gate without being its own."""


def properties(gate: Gate, quality: Quality | None) -> list[tuple[str, object]]:
    """Names, each beginning with ``kv_``, and values."""
    name = f"kv_{gate.name}"
    found: list[tuple[str, object]] = [
        (name, gate.figure),
        (f"{name}_low", gate.low),
        (f"{name}_high", gate.high),
        (f"{name}_budget", gate.budget),
        (f"{name}_verdict", gate.verdict),
        (f"{name}_chunks", gate.chunks),
        *((f"kv_{figure}", getattr(quality, figure)) for figure in BESIDE.get(gate.name, ())),
    ]
    return [(key, value) for key, value in found if value is not None]
