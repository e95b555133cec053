"""What a model's header, and the options of a run, say of its ropes, as llama.cpp loads them.

Where an architecture is not listed here, its ropes are not compared: ``None`` says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytest_kvquant.inputs.gguf_header import BadHeader
from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.numerics.rope import IMROPE, MROPE

NORMAL = frozenset(
    {"llama", "llama4", "baichuan", "internlm2", "minicpm", "command-r", "cohere2", "olmo",
     "deepseek", "deepseek2", "granite", "granitemoe", "granitehybrid", "smollm3", "arcee",
     "ernie4_5", "granite_swa", "nanbeige", "chatglm", "bailingmoe", "cohere2moe", "mistral4",
     "arctic", "xverse", "chameleon", "maincoder", "ernie4_5-moe", "mistral3", "deci", "plm"}
)  # fmt: skip
"""Architectures whose rope turns neighbouring elements."""

NEOX = frozenset(
    {"falcon", "falcon-h1", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "qwen3next", "olmo2", "olmoe",
     "phi2", "phi3", "phimoe", "gemma", "gemma2", "gemma3", "starcoder2", "gptneox", "nemotron",
     "exaone", "gpt-oss", "gemma4", "mimo2", "grok", "dbrx", "stablelm", "bitnet", "qwen", "orion",
     "codeshell", "plamo", "exaone4", "dots1", "minimax-m2", "smallthinker", "seed_oss", "lfm2",
     "lfm2moe", "grovemoe", "apertus", "openelm", "pangu-embedded", "bailingmoe2", "minicpm3",
     "jais2", "gemma3n", "afmoe", "step35", "exaone-moe", "plamo2", "plamo3", "minimax-01",
     "laguna", "mellum", "hy_v3", "talkie", "hrm_text", "maple", "spark2_5"}
)  # fmt: skip
"""Architectures whose rope turns elements that are half a head apart."""

SECTIONED = {
    "qwen2vl": MROPE, "qwen3vl": IMROPE, "qwen3vlmoe": IMROPE, "qwen35": IMROPE,
    "qwen35moe": IMROPE,
}  # fmt: skip
"""Architectures whose pairs are turned by one of four positions each: the number of the rope."""

SECTIONED_BY_HEADER = {"glm4": 0, "glm4moe": 2}
"""Architectures that are sectioned where the header has sections: the number of the rope else."""

BASE_OF_ALL = frozenset(
    {"cohere2", "cohere2moe", "exaone4", "exaone-moe", "granite_swa", "lfm2", "lfm2moe", "mellum",
     "olmo2"}
)  # fmt: skip
"""Architectures whose window layers have the frequencies of all others, whatever the header has for
them."""

OWN_BASE = frozenset({"gemma3", "gemma3n", "gemma4", "mimo2", "plamo3", "step35"})
"""Architectures whose window layers have a base of 10,000, where the header has none for them, and
are never scaled."""

PLAIN_WINDOWS = frozenset({"laguna", "mellum", "olmo2"})
"""Architectures whose window layers are not scaled, and have no YaRN."""

HALF = frozenset({"step35"})
"""Architectures that turn half of what the header says, in layers without a window."""

YARN_BETAS = frozenset({"grok", "mistral3"})
"""Architectures of which the header's ``yarn_beta_*`` are read."""

FACTORS_OF_FULL = frozenset({"gemma4", "step35"})
"""Architectures whose window layers have no factors."""

LONG = frozenset({"phi3", "phimoe", "minicpm3"})
"""Architectures that take factors by the length of the context, whatever the scaling is called."""

TAKE_FACTORS = frozenset(
    {"llama", "phi3", "phimoe", "minicpm3", "gemma4", "apertus", "arcee", "cohere2", "deci",
     "deepseek", "exaone", "exaone4", "granite", "granitemoe", "granitehybrid", "minicpm",
     "mistral3", "llama4", "step35", "bailingmoe", "cohere2moe", "exaone-moe", "granite_swa",
     "hy_v3", "nanbeige"}
)  # fmt: skip
"""Architectures whose graphs hand over the factors that the file has."""

ROPED = NORMAL | NEOX | SECTIONED.keys() | SECTIONED_BY_HEADER.keys()

Field = float | list[int]
Ropes = dict[str, Field]


class Scaling(NamedTuple):
    """How positions are scaled, all over the model."""

    base: float
    scale: float
    trained: int
    ext: float
    attention: float
    beta_fast: float
    beta_slow: float
    log_mul: float
    """YaRN's ``mscale_all_dim``."""

    @classmethod
    def of(cls, model: Model, of: Fields, options: Mapping[str, object]) -> Scaling:
        """As ``llama_context`` sets it.

        Raises:
            BadHeader: positions are scaled by nothing, or backwards.
        """
        told = {name: float(value) for name, value in options.items()
                if isinstance(value, (int, float, str)) and _is_number(value)}  # fmt: skip
        architecture, grok = model.architecture, model.architecture == "grok"
        kind = str(options.get("rope-scaling") or of.text("{arch}.rope.scaling.type") or "linear")
        factor = of.number("{arch}.rope.scaling.factor") or of.number("{arch}.rope.scale_linear")
        if told.get("rope-scale"):
            scale = 1 / told["rope-scale"]
        else:
            scale = told.get("rope-freq-scale") or (1 / factor if factor else 1.0)
        if kind == "none":
            scale = 1.0
        if not 0 < scale < math.inf:
            raise BadHeader(f"scales positions by {scale:g}, which cannot be meant")
        ext = told.get("yarn-ext-factor", -1.0)
        if ext < 0:
            ext = of.number("{arch}.rope.scaling.yarn_ext_factor", -1.0) if grok else -1.0
        if ext < 0:
            ext = float(kind == "yarn")
        log_mul = of.number("{arch}.rope.scaling.yarn_log_multiplier")
        log_mul *= {"deepseek2": 10.0, "mistral4": 10.0, "mistral3": 1.0}.get(architecture, 0.0)
        attention = told.get("yarn-attn-factor", -1.0)
        if attention < 0:
            attention = of.number("{arch}.rope.scaling.yarn_attn_factor", 1.0) if grok else 1.0
        if ext:
            attention = _yarn_attention(1 / scale, log_mul, architecture)
        fast, slow = 8.0 if grok else 32.0, 1.0
        if architecture in YARN_BETAS:
            fast = of.number("{arch}.rope.scaling.yarn_beta_fast", fast)
            slow = of.number("{arch}.rope.scaling.yarn_beta_slow", slow)
        beta_fast, beta_slow = (
            told[name] if told.get(name, -1.0) >= 0 else usual
            for name, usual in (("yarn-beta-fast", fast), ("yarn-beta-slow", slow))
        )
        trained = of.count("{arch}.rope.scaling.original_context_length", model.context_trained)
        return cls(
            told.get("rope-freq-base") or of.number("{arch}.rope.freq_base", 10_000.0),
            scale,
            int(told.get("yarn-orig-ctx") or trained or model.context_trained),
            ext,
            attention * of.number("{arch}.rope.scaling.attn_factor", 1.0),
            beta_fast,
            beta_slow,
            log_mul,
        )

    @property
    def temperature(self) -> float:
        """By what latent attention multiplies its queries, and its keys as much."""
        longer = math.log(1 / self.scale)
        return self.attention * (1 + 0.1 * longer) * (1 + 0.1 * self.log_mul * longer)

    def fields(self) -> Ropes:
        """Of a rope of a layer without a window."""
        found: Ropes = {"base": self.base, "scale": self.scale, "ext": self.ext,
                        "attention": self.attention}  # fmt: skip
        if self.ext:
            found |= {"trained": self.trained, "beta_fast": self.beta_fast,
                      "beta_slow": self.beta_slow}  # fmt: skip
        return found


def ropes(
    model: Model, of: Fields, tensors: Sequence[str], options: Mapping[str, object]
) -> tuple[Ropes | None, Ropes | None]:
    """Fields of the ropes of full and of window layers; only those that the header determines.

    Args:
        tensors: names of the tensors of the file.
        options: of llama.cpp, as the run gives them.
    """
    architecture = model.architecture
    if architecture not in ROPED:
        return None, None
    sections = list(of.counts("{arch}.rope.dimension_sections", 4, 0))
    mode = SECTIONED.get(architecture, 2 if architecture in NEOX else 0)
    if architecture in SECTIONED_BY_HEADER:
        mode = MROPE if all(sections[:2]) else SECTIONED_BY_HEADER[architecture]
    found: Ropes = {"mode": mode, **Scaling.of(model, of, options).fields()}
    if mode in (MROPE, IMROPE):
        found["sections"] = sections
    latent = architecture in ("deepseek2", "minicpm3", "mistral4", "plm")
    if not latent or "{arch}.rope.dimension_count" in of:
        found["dims"] = of.count("{arch}.rope.dimension_count", model.head_dim_k)
    windows = _of_windows(architecture, of, found)
    if architecture in HALF:
        found["dims"] = of.count("{arch}.rope.dimension_count", model.head_dim_k) // 2
    handed = _factors(architecture, of, tensors)
    if handed is not None:
        found["factors"] = float(handed)
        windows["factors"] = float(handed and architecture not in FACTORS_OF_FULL)
    return found, windows


def _of_windows(architecture: str, of: Fields, full: Ropes) -> Ropes:
    found = dict(full)
    if "{arch}.rope.dimension_count_swa" in of:
        found["dims"] = of.count("{arch}.rope.dimension_count_swa")
    if architecture in OWN_BASE:
        found |= {"base": of.number("{arch}.rope.freq_base_swa", 10_000.0), "scale": 1.0}
    elif architecture not in BASE_OF_ALL and "{arch}.rope.freq_base_swa" in of:
        found["base"] = of.number("{arch}.rope.freq_base_swa")
    if architecture in PLAIN_WINDOWS:
        found |= {"scale": 1.0, "ext": 0.0, "attention": 1.0}
        for name in ("trained", "beta_fast", "beta_slow"):
            found.pop(name, None)
    return found


def _factors(architecture: str, of: Fields, tensors: Sequence[str]) -> bool | None:
    """Whether graphs hand over divisors of the frequencies; ``None``: not known."""
    if not any("rope_f" in name for name in tensors):
        return False
    if architecture not in TAKE_FACTORS:
        return None
    by_length = architecture in LONG or of.text("{arch}.rope.scaling.type") == "longrope"
    kind = "rope_factors_" if by_length else "rope_freqs"
    return True if any(kind in name for name in tensors) else None


def _yarn_attention(factor: float, log_mul: float, architecture: str) -> float:
    """As ``llama_context`` computes it; ggml multiplies the cancelled factor again."""

    def mscale(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    found = mscale(1.0)
    if log_mul:
        found = mscale(log_mul if architecture == "deepseek2" else 1.0) / mscale(log_mul)
    return found / (1 + 0.1 * math.log(factor))


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return not isinstance(value, bool)
