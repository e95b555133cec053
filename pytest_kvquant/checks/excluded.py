"""When "no kernel is suspected" may be said: only with every other explanation excluded."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pytest_kvquant.checks.kernel_names import TITLES
from pytest_kvquant.checks.located import Located, locate
from pytest_kvquant.checks.uneven import uneven
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.diagnosis import Diagnosis
from pytest_kvquant.results.gate import Gate

KERNELS = (
    "types", "placement", "quantizer", "attention", "cache_writes", "graph_inputs", "fused",
    "ladder", "operations", "shapes", "restore",
)  # fmt: skip
"""Checks of which each could explain a cell that fails."""

NEEDED = ("kl_ratio", "decode_kl_ratio")
"""Ratios that must be decided: their interval is the figure that excludes a kernel."""


EXACT = {"quantizer": "cache_writes", "attention": "attention"}
"""The check by which exact arithmetic excludes what the probe may suspect."""

ELSEWHERE = {
    "quantizer": "Every cache write that was examined is exact: it is what comes before the write, "
    "or what touches rows after it",
    "attention": "Attention is exact where it was examined: it is what follows it, or a place that "
    "was not examined",
}
"""Where else it can be."""


def reviewed(diagnosis: Diagnosis | None, cell: Cell) -> Diagnosis | None:
    """A diagnosis in the light of all that was measured of its cell.

    What exact arithmetic found on live graphs comes first: it needs no inference. Of what the
    probe's rows suggested, only that remains which names the same kernel.

    "No kernel is suspected" stays only where the ratios to the healthy cell are decided and right,
    the quantizers are within their rules, and no check of a kernel fails. Otherwise it reads
    "unexplained", with what was excluded: no name is better than a wrong one. The same holds of a
    kernel that the probe infers from rows or logits, and that exact arithmetic found right.
    """
    if (found := locate(cell)) is not None:
        return _named(found, diagnosis)
    if diagnosis is not None and diagnosis.suspects:
        return _without_the_proven(diagnosis, cell)
    if diagnosis is None or diagnosis.verdict not in ("rounding", "not localized"):
        return diagnosis
    excluded, left = list(_excluded(cell)), list(_open(cell))
    if diagnosis.verdict == "rounding" and excluded and not left:
        text = (
            "No kernel is suspected: the cell costs what its types' rounding costs here "
            f"({'; '.join(excluded)}). Whether that is good enough on this model is the budget's "
            "question."
        )
        return replace(diagnosis, sentence=text)
    said = "; ".join(left) or "the rows of the probe give no hint"
    text = f"Unexplained: {said}. Excluded: {'; '.join(excluded) or 'nothing yet'}."
    against = tuple(dict.fromkeys((*left, *diagnosis.against)))
    return replace(diagnosis, verdict="not localized", sentence=text, against=against)


def _without_the_proven(diagnosis: Diagnosis, cell: Cell) -> Diagnosis:
    """A suspicion that contradicts what was found exact on live nodes names no kernel.

    What was seen stays: rows can be wrong though each write is right, by what comes before it or
    touches them later, and logits though attention is, by what follows it.
    """
    right = {one.name for one in cell.checks if one.verdict == "pass"}
    left = tuple(one for one in diagnosis.suspects if EXACT[one.kernel] not in right)
    if left:
        sentence = " ".join(one.sentence for one in left)
        return replace(diagnosis, suspects=left, sentence=sentence)
    seen = " ".join(one.sentence.split(": look at ")[0] for one in diagnosis.suspects)
    kernels = {one.kernel for one in diagnosis.suspects}
    elsewhere = "; ".join(ELSEWHERE[one] for one in sorted(kernels))
    return replace(
        diagnosis,
        verdict="not localized",
        sentence=f"Unexplained: {seen}. {elsewhere}.",
        suspects=(),
        against=(elsewhere, *diagnosis.against),
    )


def _named(found: Located, probed: Diagnosis | None) -> Diagnosis:
    """A kernel that was located, with what the probe says beside it."""
    if probed is None:
        return Diagnosis(verdict="suspect", sentence=f"{found.sentence}.", fits=found.evidence)
    same = {"write": "quantizer", "quantizer": "quantizer", "attention": "attention"}
    alike = [one for one in probed.suspects if one.kernel == same.get(found.operation)]
    return replace(
        probed,
        verdict="suspect",
        sentence=f"{found.sentence}.",
        suspects=tuple(alike),
        fits=(*found.evidence, *(one.sentence for one in alike), *probed.fits),
    )


def _excluded(cell: Cell) -> Iterator[str]:
    """What is known to be right, with its figures."""
    for gate in cell.gates:
        if gate.question == "kernel" and gate.verdict == "pass" and gate.name in TITLES:
            yield f"{TITLES[gate.name]} {_figures(gate)}"
    names = [one.name for one in cell.checks if one.name in KERNELS and one.verdict == "pass"]
    if names:
        yield f"right: {', '.join(names)}"


def _open(cell: Cell) -> Iterator[str]:
    """What is wrong or undecided, and could be the kernel's doing."""
    if seen := uneven(cell):
        yield seen
    gates = {gate.name: gate for gate in cell.gates}
    for name in NEEDED:
        if name not in gates:
            yield f"{TITLES[name]} was not measured"
    for gate in cell.gates:
        if gate.question == "kernel" and gate.verdict != "pass":
            word = "is wrong" if gate.verdict == "fail" else "is not decided"
            yield f"{TITLES.get(gate.name, gate.name)} {word}: {_figures(gate)}"
    for one in cell.checks:
        if one.name in KERNELS and one.verdict == "fail":
            yield f"{one.name}: {one.text}"
    if not any(one.name == "quantizer" and one.verdict == "pass" for one in cell.checks):
        yield "the quantizers were not held against arithmetic"


def _figures(gate: Gate) -> str:
    low = "−∞" if gate.low is None else f"{gate.low:.3g}"
    high = "∞" if gate.high is None else f"{gate.high:.3g}"
    return f"{gate.figure:.3g} ({low} to {high})"
