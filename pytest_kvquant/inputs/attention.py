"""What a model's header says of its attention, so that nothing of it is taken from a graph.

As llama.cpp loads it. Where an architecture is not listed here, its parameters are not compared:
``None`` says so.
"""

from __future__ import annotations

import math
from pathlib import Path

from pytest_kvquant.errors import ModelError
from pytest_kvquant.inputs.gguf_header import BadHeader
from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.inputs.model import Model, read_header

NORMAL_ROPE = frozenset(
    {"llama", "llama4", "baichuan", "internlm2", "minicpm", "command-r", "cohere2", "olmo",
     "deepseek", "deepseek2", "granite", "granitemoe", "granitehybrid", "smollm3", "arcee",
     "ernie4_5"}
)  # fmt: skip
"""Architectures whose rope turns neighbouring elements."""

NEOX_ROPE = frozenset(
    {"falcon", "falcon-h1", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "qwen3next", "olmo2", "olmoe",
     "phi2", "phi3", "phimoe", "gemma", "gemma2", "gemma3", "starcoder2", "gptneox", "nemotron",
     "exaone", "gpt-oss"}
)  # fmt: skip
"""Architectures whose rope turns elements that are half a head apart."""

ALIBI = {"bloom": 8.0, "jais": 8.0, "mpt": None, "refact": 8.0}
"""Largest bias where it is fixed; ``None``: the header says it."""

SCALED_BY_SIZE = frozenset({"jais"})
"""Architectures whose scores are divided by the size of a head, not by its root."""

CHUNKED = frozenset({"llama4"})
"""Architectures whose windows begin at multiples of their length."""

WINDOWS = {"phi3": 0, "smallthinker": 4096, "llama4": 8192}
"""Lengths that llama.cpp takes whatever the header says."""

OTHER_SCALES = frozenset({"deepseek2", "grok", "llama4", "granite", "granitemoe", "granitehybrid"})
"""Architectures whose scores are scaled by more than the size of a head."""


def attention_facts(model: Model) -> dict[str, object]:
    """Fields of :class:`pytest_kvquant.engine.child.facts.Facts`.

    Raises:
        ModelError: the header says something that cannot be meant.
    """
    try:
        return _facts(model, Fields(read_header(Path(model.path)), model.architecture))
    except BadHeader as error:
        raise ModelError(f"The model {model.path} {error}.") from None


def _facts(model: Model, of: Fields) -> dict[str, object]:
    architecture = model.architecture
    listed = architecture in NORMAL_ROPE | NEOX_ROPE | ALIBI.keys()
    base, windows = _ropes(model, of)
    scale = of.number("{arch}.attention.scale") if "{arch}.attention.scale" in of else None
    if not model.n_head or not model.head_dim_k:
        listed = False  # a header without heads says nothing of attention
    if scale is None and listed and architecture not in OTHER_SCALES:
        root = 1 if architecture in SCALED_BY_SIZE else 0.5
        scale = model.head_dim_k**-root
    if listed and (architecture == "gemma2" or (architecture == "gemma3" and model.n_layer == 62)):
        wide = {46: model.n_embd / model.n_head, 62: model.n_embd / model.n_head}
        scale = 1 / math.sqrt(wide.get(model.n_layer, model.head_dim_k))
    softcap = of.number("{arch}.attn_logit_softcapping", 50.0 if architecture == "gemma2" else 0.0)
    bias = ALIBI.get(architecture, 0.0)
    if bias is None:
        bias = of.number("{arch}.attention.max_alibi_bias")
    return {
        "scale": scale or None,
        "softcap": softcap if listed else None,
        "bias": float(bias) if listed else None,
        "window_length": WINDOWS.get(architecture, model.window) if model.window else 0,
        "chunked": architecture in CHUNKED,
        "windowed": None if model.windowed is None else list(model.windowed),
        "ropes": base,
        "ropes_of_windows": windows,
    }


def _ropes(model: Model, of: Fields) -> tuple[dict[str, float] | None, dict[str, float] | None]:
    """Fields of the ropes of full and of window layers; only those that the header determines."""
    architecture = model.architecture
    if architecture not in NORMAL_ROPE | NEOX_ROPE:
        return None, None
    scaling = of.text("{arch}.rope.scaling.type") or "none"
    found: dict[str, float] = {
        "mode": 2 if architecture in NEOX_ROPE else 0,
        "base": of.number("{arch}.rope.freq_base", 10_000.0),
    }
    if architecture not in ("deepseek2", "minicpm"):
        found["dims"] = of.count("{arch}.rope.dimension_count", model.head_dim_k)
    if scaling == "none":
        found["scale"] = 1.0
    elif scaling == "linear":
        found["scale"] = 1 / (of.number("{arch}.rope.scaling.factor", 1.0) or 1.0)
    windows = dict(found)
    if architecture == "gemma3":
        windows |= {"base": of.number("{arch}.rope.freq_base_swa", 10_000.0), "scale": 1.0}
    elif "{arch}.rope.freq_base_swa" in of:
        windows["base"] = of.number("{arch}.rope.freq_base_swa")
    return found, windows
