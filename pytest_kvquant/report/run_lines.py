"""A run in single lines: its conditions, where its reference came from, its earlier sittings."""

from __future__ import annotations

from pytest_kvquant import format
from pytest_kvquant.results.result import Result


def sittings_line(result: Result) -> str:
    """What was taken over from earlier sittings."""
    *earlier, _ = result.sittings
    taken = [f"{len(one.cells)} cells and {len(one.speeds)} speeds of {one.started}"
             for one in earlier]  # fmt: skip
    return f"taken over from an interrupted run: {', '.join(taken)}"


def reference_line(result: Result) -> str:
    """Whether the reference was computed or reused."""
    reference = result.reference
    parts = []
    if reference.computed:
        parts.append(
            f"computed for {reference.computed} chunks "
            f"({format.seconds(reference.decode_seconds)} of llama_decode)"
        )
    if reference.reused:
        parts.append(f"reused for {reference.reused} chunks")
    if reference.damaged:
        parts.append(f"{reference.damaged} stored chunks were damaged and computed again")
    other = reference.library
    name = f"reference from {other.build}, {other.path}" if other else "f16 reference"
    if reference.file:
        name = (
            f"f16 reference from {reference.file} (16 bits, clamped 16 nats below the largest "
            "logit: what f16/f16 shows is the bias of every KL here)"
        )
    if reference.by_cell:
        name = f"each cell against itself: {name}"
    return f"{name}: {', '.join(parts) or 'not needed'}"


def conditions_line(result: Result) -> str:
    """The conditions of every figure, in one line."""
    shape, library = result.settings, result.environment.library
    device = library.computing
    if device != "CPU" and shape.gpu_layers >= 0:
        device = f"CPU and {shape.gpu_layers} layers on {device}"
    setup = "".join(f" · {name} {value}" for name, value in shape.setup.items())
    chunks = f"at most {shape.cap} chunks" if shape.early else f"{shape.cap} chunks"
    return (
        f"{result.model.name} · {result.corpus.name} ({shape.order}, seed {shape.seed}) · "
        f"{shape.ctx} tokens a chunk, {shape.scored} scored, {chunks} ({shape.profile}) · "
        f"llama.cpp {library.build}, bindings {library.bindings} · {device}, "
        f"{format.several(shape.threads, 'thread')}{setup} · {format.seconds(result.seconds)}"
    )
