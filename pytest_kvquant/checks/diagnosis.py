"""Figures of a cache's rows in, the suspect out, as data.

Three readings, in this order:

- rows of the first layer are not what the reference quantizer makes of f16's rows: the kernel
  that quantizes and stores them, by that side and path;
- they are, and rows of a later layer stray further than a healthy cell's would: the attention of
  the layer before, by that path;
- all rows are right, and the logits are not: the attention of the last layer.

"A healthy cell" is emulated with f16 kernels and the reference quantizers; where the emulation
accounts for everything, no kernel is suspected: the types are that coarse.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from pytest_kvquant.checks.quantizer_suspects import quantizer_suspects
from pytest_kvquant.results.diagnosis import (
    Diagnosis,
    LayerFigures,
    Path,
    PathKL,
    Suspect,
)

LOGITS = 5.0
"""Times the KL of an emulated cell; on the few tokens of a probe, 0.8 to 1.6 on healthy builds."""

LOGITS_FLOOR = 1e-3
"""Nats that a probe's few tokens may show without a reason."""


def diagnose(figures: Sequence[LayerFigures], logits: PathKL | None, *, failed: bool) -> Diagnosis:
    """Read a probe.

    Args:
        figures: of all layers, sides and paths, layers in the model's order.
        logits: where they were compared.
        failed: whether the cell fails a gate or a check, so that there is something to explain.
    """
    suspects = quantizer_suspects(figures)
    if not suspects:
        suspects = _attention_suspects(figures, logits)
    fits, against = _observations(figures, logits)
    if suspects:
        text = " ".join(suspect.sentence for suspect in suspects)
        verdict: Literal["healthy", "suspect", "rounding", "not localized"] = "suspect"
    elif not failed:
        verdict, text = "healthy", "The cache holds what the reference quantizer makes of it."
    elif _explained_by_emulation(figures, logits):
        verdict = "rounding"
        text = (
            "No kernel is suspected: rows and logits stray no further than the rounding of the "
            "types explains. The budget is below what these types can do on this model, or the "
            "fault needs more tokens than a probe has."
        )
    else:
        verdict = "not localized"
        text = f"Not localized: {against[0] if against else 'the rows give no hint'}."
    return Diagnosis(
        verdict=verdict,
        sentence=text,
        suspects=suspects,
        fits=fits,
        against=against,
        figures=tuple(figures),
        logits=logits,
    )


def _attention_suspects(
    figures: Sequence[LayerFigures], logits: PathKL | None
) -> tuple[Suspect, ...]:
    """The path and the layer before the first one whose rows stray too far."""
    starts: dict[Path, int] = {}
    for path in ("prefill", "decode"):
        layers = list(dict.fromkeys(one.layer for one in figures if one.path == path))
        for before, layer in itertools.pairwise(layers):
            if any(one.wrong for one in figures if (one.path, one.layer) == (path, layer)):
                starts[path] = before
                break
        else:
            if layers and _wrong_logits(logits, path):
                starts[path] = layers[-1]
    if not starts:
        return ()
    if len(set(starts.values())) == 1 and len(starts) == 2:
        return (_attention("both", next(iter(starts.values())), figures),)
    return tuple(_attention(path, layer, figures) for path, layer in starts.items())


def _wrong_logits(logits: PathKL | None, path: Path) -> bool:
    if logits is None or logits.expected is None:
        return False
    return not getattr(logits, path) <= LOGITS * logits.expected + LOGITS_FLOOR


def _attention(
    path: Literal["prefill", "decode", "both"], layer: int, figures: Sequence[LayerFigures]
) -> Suspect:
    types = {one.side: one.type for one in figures if one.layer == layer}
    pair = f"K {types.get('K', '?')}, V {types.get('V', '?')}"
    wrong = [one for one in figures if one.wrong and path in ("both", one.path)]
    if wrong:
        first = wrong[0]
        times = first.nmse / first.expected if first.expected else float("inf")
        seen = f"those of layer {first.layer} stray {times:.0f} times as far as a healthy cell's"
    else:
        seen = "the logits do not fit them"
    when = "by both paths" if path == "both" else f"by {path} only"
    high = not wrong or any(one.bound and one.nmse > 3 * one.bound for one in wrong)
    return Suspect(
        kernel="attention",
        side="both",
        path=path,
        layers=(layer,),
        confidence="high" if high else "medium",
        sentence=(
            f"K and V are stored right up to layer {layer}, but {seen}, {when}: look at how "
            f"attention reads {pair}{' with one token' if path == 'decode' else ''}."
        ),
    )


def _explained_by_emulation(figures: Sequence[LayerFigures], logits: PathKL | None) -> bool:
    return (
        logits is not None
        and logits.expected is not None
        and any(one.expected is not None for one in figures)
    )


def _observations(
    figures: Sequence[LayerFigures], logits: PathKL | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    fits, against = [], []
    clean = [one for one in figures if one.clean]
    if not clean:
        against.append("which layer comes first in the model does not show in its cache")
    for side in ("K", "V"):
        rows = [one for one in clean if one.side == side]
        if rows and all(one.rotation is None for one in rows):
            against.append(f"{side} is stored in a basis that is not known")
        elif rows:
            worst = max(one.nmse / one.explained for one in rows)
            fits.append(f"{side} of the first layer: {worst:.1f} times what rounding explains")
    later = [one for one in figures if one.expected]
    if later:
        worst = max(one.nmse / one.expected for one in later if one.expected)
        fits.append(f"later layers: at most {worst:.1f} times as far from f16 as a healthy cell")
    elif any(not one.clean for one in figures):
        against.append("no healthy cell was emulated, so later layers have nothing to compare with")
    if logits is not None and logits.expected is not None:
        fits.append(
            f"KL on the probe's last tokens: {logits.prefill:.2g} by prefill, "
            f"{logits.decode:.2g} by decode, {logits.expected:.2g} in a healthy cell"
        )
    return tuple(fits), tuple(against)
