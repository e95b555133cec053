"""What a model's header says of its attention, so that nothing of it is taken from a graph.

As llama.cpp loads it. Where an architecture is not listed here, its parameters are not compared:
``None`` says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from pytest_kvquant.errors import ModelError
from pytest_kvquant.inputs.gguf_header import BadHeader, read_header
from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.inputs.ropes import ROPED, Scaling, ropes
from pytest_kvquant.inputs.turned import turned

ALIBI = {"bloom": 8.0, "jais": None, "mpt": None, "refact": 8.0}
"""Largest bias where it is fixed; ``None``: the header says it."""

WITHOUT_POSITIONS = frozenset(
    {"gpt2", "starcoder", "jamba", "nemotron_h", "nemotron_h_moe", "kimi-linear"}
)  # fmt: skip
"""Architectures whose attention knows positions by its mask alone."""

SCALED_BY_SIZE = frozenset({"jais"})
"""Architectures whose scores are divided by the size of a head, not by its root."""

SCALED_BY_HEADER = frozenset({"granite", "granitemoe", "granitehybrid", "granite_swa"})
"""Architectures of which the header's own scale is read."""

CHUNKED = frozenset({"llama4"})
"""Architectures whose windows begin at multiples of their length."""

WINDOWS = {"phi3": 0, "smallthinker": 4096, "llama4": 8192}
"""Lengths that llama.cpp takes whatever the header says."""

SINKS = "attn_sinks.weight"
"""A layer's sinks; llama.cpp refuses a file with a tensor that its graph does not use."""

KNOWN = ROPED | ALIBI.keys() | WITHOUT_POSITIONS


def attention_facts(model: Model, options: Mapping[str, object] | None = None) -> dict[str, object]:
    """Fields of :class:`pytest_kvquant.engine.child.facts.Facts`.

    Args:
        options: of llama.cpp, as the run gives them; some change what the header says.

    Raises:
        ModelError: the header says something that cannot be meant.
    """
    try:
        header = read_header(Path(model.path))
        fields = Fields(header.fields, model.architecture)
        tensors = [tensor.name for tensor in header.tensors]
        for file in model.files:
            if file != model.path:
                tensors += [tensor.name for tensor in read_header(Path(file)).tensors]
        return _facts(model, fields, tensors, options or {})
    except BadHeader as error:
        raise ModelError(f"The model {model.path} {error}.") from None


def _facts(
    model: Model, of: Fields, tensors: list[str], options: Mapping[str, object]
) -> dict[str, object]:
    architecture = model.architecture
    listed = architecture in KNOWN and "override-kv" not in options
    if not model.n_head or not model.head_dim_k:
        listed = False  # a header without heads says nothing of attention
    base, windows = ropes(model, of, tensors, options) if listed else (None, None)
    softcaps = {"gemma2": 50.0, "grok": 30.0}
    cap = softcaps.get(architecture)
    softcap = 0.0 if cap is None else of.number("{arch}.attn_logit_softcapping", cap)
    return {
        "scale": _scale(model, of, options) if listed else None,
        "softcap": softcap if listed else None,
        "bias": _bias(model, of) if listed else None,
        "sinks": [layer for layer in range(model.n_layer) if f"blk.{layer}.{SINKS}" in tensors],
        "window_length": WINDOWS.get(architecture, model.window) if model.window else 0,
        "chunked": architecture in CHUNKED,
        "windowed": None if model.windowed is None else list(model.windowed),
        "turned": turned(model, of) if listed else None,
        "ropes": base,
        "ropes_of_windows": windows,
    }


def _bias(model: Model, of: Fields) -> float:
    """ALiBi's largest bias."""
    if model.architecture == "baichuan":
        return 8.0 if model.n_layer == 40 else 0.0  # its larger model has no rope
    bias = ALIBI.get(model.architecture, 0.0)
    return of.number("{arch}.attention.max_alibi_bias") if bias is None else bias


def _scale(model: Model, of: Fields, options: Mapping[str, object]) -> float | None:
    """By what scores are multiplied, all in all; ``None``: it is not known."""
    architecture, size = model.architecture, float(model.head_dim_k)
    found: float | None = None
    if architecture in ("gemma3n", "gemma4"):
        found = 1.0  # its queries and keys are normalized
    elif architecture == "grok":
        found = of.number("{arch}.attention.output_scale", 0.08838834764831845)
    elif architecture in SCALED_BY_HEADER:
        found = of.number("{arch}.attention.scale") or None
    elif of.count("{arch}.attention.key_length_swa", model.head_dim_k) != model.head_dim_k:
        return None  # another one per layer
    if found is not None:
        return found
    if architecture in SCALED_BY_SIZE:
        return 1 / size
    if (architecture, model.n_layer) in (("gemma2", 46), ("gemma3", 62)):
        size = model.n_embd // model.n_head
    size = of.count("{arch}.attention.key_length_mla", 0) or size
    if architecture == "bailingmoe":
        size = of.count("{arch}.rope.dimension_count", model.head_dim_k)
    if architecture == "plamo2":
        size = model.head_dim_v
    factor = 1.0
    if architecture in ("deepseek2", "mistral4"):
        factor = Scaling.of(model, of, options).temperature ** 2
    return factor / math.sqrt(size) if size > 0 else None
