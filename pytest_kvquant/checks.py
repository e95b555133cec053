"""Figures → checks: what a cell is, where it ran, and whether its paths agree with each other.

A gate weighs chance; a check states a fact about this cell on this build. Pure: data in, data out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import islice

from pytest_kvquant.geometry import Explanation
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.diagnosis import ALLOWED, Diagnosis
from pytest_kvquant.report.result import CacheSize, CensusRecord, Check, Placement

FLOOR_FACTOR = 10.0
"""A figure within this many times what f16 shows is noise."""

BUDGET_SHARE = 0.1
"""Two shapes of one cell may differ by this share of its KL budget: a rounding that falls the
other way moves a quantized value by a whole step, which f16 does not know."""


ROUNDING = 1e-9
"""Of two quotients of whole numbers."""

MIB = 1 << 20

PRINTED = 0.01
"""MiB: the library prints sizes with two decimals."""

_SPLITS = r"graph(?: splits =|[^:\n]*: nodes = [^,\n]+, splits =) (\d+)"


def placement(log: str) -> Placement:
    """Where the KV cache lies and how often the graph changes device, as the library's log says.

    The lines are llama.cpp's own (``llama_kv_cache: CPU KV buffer size = 2.00 MiB``, ``size = 2.00
    MiB (512 cells, 4 layers, 1/1 seqs)`` with the number of streams of so many cells each,
    ``graph splits = 2``, later ``graph: nodes = 178, splits = 2`` or, where prefill and decode
    differ, ``graph (pp bs=512, tg bs=4): nodes = 154 / 154, splits = 41 / 2``: that of prefill is
    taken); what it does not print stays unknown.
    """
    buffers: dict[str, float] = {}
    for device, size in re.findall(r"(\S+) KV buffer size\s*=\s*([\d.]+) MiB", log):
        buffers[device] = buffers.get(device, 0.0) + float(size)
    splits = re.findall(_SPLITS, log)
    sizes = re.findall(r"\(\s*(\d+) cells,\s*(\d+) layers,\s*\d+/(\d+) seqs\)", log)
    return Placement(
        kv_buffers=buffers,
        graph_splits=int(splits[-1]) if splits else None,
        caches=tuple(
            CacheSize(cells=int(cells) * int(streams), layers=int(layers))
            for cells, layers, streams in sizes
        ),
    )


def check_placement(found: Placement, gpus: Iterable[str], gpu_layers: int) -> Check:
    """Asked for a GPU, the KV cache must not be on the CPU."""
    wanted = list(gpus) if gpu_layers != 0 else []
    where = ", ".join(f"{device} {size:g} MiB" for device, size in found.kv_buffers.items())
    splits = f"; {found.graph_splits} graph splits" if found.graph_splits is not None else ""
    if not found.kv_buffers:
        return _check("placement", "inconclusive", "the library does not say where the cache lies")
    on_cpu = [device for device in found.kv_buffers if device.startswith("CPU")]
    if wanted and on_cpu and gpu_layers < 0:
        return _check(
            "placement",
            "fail",
            f"the KV cache is on the CPU ({where}) although this build has {', '.join(wanted)}; "
            "was the device lost, or did its kernels fail to compile? (--kv-gpu-layers 0 asks "
            "for the CPU)",
        )
    return _check("placement", "pass", f"KV cache on {where}{splits}")


def check_footprint(census: CensusRecord, placed: Placement | None, floor: float | None) -> Check:
    """A token takes at most the bytes that the floor on the compression allows.

    Args:
        floor: bytes per token of f16/f16 over those of the pair, at least; ``None``: what the
            model's geometry says, to the byte.
    """
    held, compression = census.bytes_per_token, census.measured_compression
    if not held or compression is None or not census.understood:
        return _check(
            "footprint", "inconclusive", f"what a token should take is not known: {census.text}"
        )
    least = census.compression if floor is None else floor
    return _check(
        "footprint",
        "pass" if compression >= least * (1 - ROUNDING) else "fail",
        f"a token takes {held:,.0f} bytes, {compression:.3f} times less than f16; the floor is "
        f"{least:.3f} times; {_allocation(census, placed)}",
        figure=compression,
        limit=least,
    )


def _allocation(census: CensusRecord, placed: Placement | None) -> str:
    """What the library allocates, beside what the rows of so many cells take."""
    if placed is None or not placed.allocated:
        return "the library does not say what it allocates"
    said = f"the library allocates {placed.allocated:g} MiB"
    if not placed.caches or sum(one.layers for one in placed.caches) != len(census.layers):
        return said
    layers = iter(census.layers)
    rows = 0.0
    for cache in placed.caches:
        of_token = sum(layer.k_row + layer.v_row for layer in islice(layers, cache.layers))
        rows += cache.cells * of_token / MIB
    cells = " + ".join(f"{cache.cells:,}" for cache in placed.caches)
    more = placed.allocated - rows
    if abs(more) <= PRINTED * (len(placed.kv_buffers) + len(placed.caches)):
        return f"{said} for {cells} cells, as their rows take"
    word = "more" if more > 0 else "less"
    return f"{said} for {cells} cells, {abs(more):.2f} MiB {word} than their rows take"


def check_contents(diagnosis: Diagnosis | None) -> Check:
    """The first layer holds what the type's reference quantizer makes of f16's rows.

    The bound is a multiple of what the rounding of the source to f16 explains for this type.

    Args:
        diagnosis: ``None`` for f16/f16 itself.
    """
    if diagnosis is None:
        return _check("contents", "pass", "these are the rows that others are compared with")
    first = [one for one in diagnosis.figures if one.clean and one.rotation is not None]
    figure = max((one.nmse / one.explained for one in first), default=None)
    verdict = "pass" if figure is not None else "inconclusive"
    if diagnosis.verdict == "suspect":
        verdict = "fail"
    text = diagnosis.sentence
    if verdict == "inconclusive" and diagnosis.against:
        text = diagnosis.against[0]
    return Check(name="contents", verdict=verdict, text=text, figure=figure, limit=ALLOWED)


def check_types(explanation: Explanation, effective: str, expected: str | None, log: str) -> Check:
    """The cache holds what was asked for, or exactly what the configuration expects instead.

    Args:
        effective: the pair that the cache really holds, ``mixed`` where layers differ; empty
            where its state is not readable.
        expected: ``[expect."K/V"] substituted`` of this pair, if any.
        log: the library's log; a line of it that speaks of the change is quoted.
    """
    if expected is not None and effective:
        if explanation.kind == "substituted" and effective == expected:
            return _check("types", "pass", f"runs as {effective}, as [expect] says")
        return _check(
            "types",
            "fail",
            f"[expect] says that it runs as {expected}, and it runs as {effective}: "
            "correct or remove the entry",
        )
    if explanation.kind == "substituted":
        lines = [line.strip() for line in log.splitlines() if _SPEAKS_OF_CHANGE.search(line)]
        quoted = f"; the library says: {lines[-1]}" if lines else "; the library's log is silent"
        return _check("types", "fail", f"{explanation.text}{quoted}")
    if explanation.kind == "differs":
        return _check("types", "fail", explanation.text)
    verdict = "inconclusive" if explanation.kind == "unreadable" else "pass"
    return _check("types", verdict, explanation.text)


_SPEAKS_OF_CHANGE = re.compile(r"upgrading|auto-asymmetric|Boundary V|fall(ing)? ?back|instead of")


def check_shapes(
    kl: Mapping[str, float], control: Mapping[str, float], budget: float
) -> tuple[Check, Check]:
    """The same tokens in another batch shape, and after save and restore, give the same logits.

    Args:
        kl: mean KL between shapes of the cell, by shape; ``restored`` is the one after restore.
        control: the same of f16.
        budget: the cell's budget for mean KL.
    """
    limits = {
        name: max(FLOOR_FACTOR * control.get(name, 0.0), BUDGET_SHARE * budget) for name in kl
    }
    # NaN is a disagreement: hence not (kl <= limit).
    wrong = [name for name in kl if name != "restored" and not kl[name] <= limits[name]]
    worst = max(
        (name for name in kl if name != "restored"), key=lambda name: kl[name], default=None
    )
    shapes = _check(
        "shapes",
        "fail" if wrong else "pass",
        _disagreement(wrong, kl, limits) if wrong else "every batch shape gives the same logits",
        figure=kl[worst] if worst else None,
        limit=limits[worst] if worst else None,
    )
    same = kl["restored"] <= limits["restored"]
    restore = _check(
        "restore",
        "pass" if same else "fail",
        "a saved and restored sequence goes on as if uninterrupted"
        if same
        else f"after save and restore the logits differ by KL {kl['restored']:.2g}, allowed are "
        f"{limits['restored']:.2g}: the serialized state is not the whole cache",
        figure=kl["restored"],
        limit=limits["restored"],
    )
    return shapes, restore


def check_trajectory(agreement: float, floor: float, first: Iterable[int]) -> Check:
    """Greedy text agrees with f16's for long enough."""
    places = ", ".join(map(str, first))
    return _check(
        "trajectory",
        "pass" if agreement >= floor else "fail",
        f"greedy text agrees for {agreement:.0%} of its length (first difference after "
        f"{places} tokens); the floor is {floor:.0%}",
        figure=agreement,
        limit=floor,
    )


def check_measurable(budget: float, floor: float) -> Check:
    """The budget is large enough to be told from the machine's noise."""
    least = FLOOR_FACTOR * floor
    measurable = budget == 0.0 or budget >= least
    return _check(
        "measurable",
        "pass" if measurable else "fail",
        f"the noise floor is KL {floor:.2g}"
        if measurable
        else f"a budget of KL {budget:g} is not measurable here: f16 against itself shows "
        f"{floor:.2g}, and a budget takes {FLOOR_FACTOR:g} times that ({least:.2g})",
        figure=budget,
        limit=least,
    )


def check_active(pair: Pair, quantized: bool, kl: float, floor: float) -> Check:
    """A quantized cell shows more than noise: else the quantization is off."""
    off = quantized and kl <= floor
    return _check(
        "active",
        "fail" if off else "pass",
        f"{pair} is quantized, and its KL {kl:.2g} is at the noise floor ({floor:.2g}): "
        "the cache seems not to be quantized at all"
        if off
        else f"KL {kl:.3g} over a floor of {floor:.2g}",
        figure=kl,
        limit=floor,
    )


def check_distinct(twins: Iterable[str]) -> Check:
    """No other cell with another census has the very same logits."""
    names = ", ".join(twins)
    return _check(
        "distinct",
        "fail" if names else "pass",
        f"bit-identical logits to {names}, although the caches hold other types: one of them is "
        "not what its name says"
        if names
        else "no other cell has the same logits",
    )


def _disagreement(wrong: list[str], kl: Mapping[str, float], limits: Mapping[str, float]) -> str:
    parts = [f"{name}: KL {kl[name]:.2g}, allowed {limits[name]:.2g}" for name in wrong]
    return f"the same tokens give other logits in another batch shape ({'; '.join(parts)})"


def _check(
    name: str, verdict: str, text: str, *, figure: float | None = None, limit: float | None = None
) -> Check:
    return Check(name=name, verdict=verdict, text=text, figure=figure, limit=limit)
