"""Ropes and scales by the header and by options, as llama.cpp loads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_kvquant.inputs import attention, ropes
from pytest_kvquant.inputs.gguf_header import BadHeader
from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.inputs.model import Model

YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0,
        "rope.scaling.original_context_length": 1024}  # fmt: skip


def model(architecture: str, **changes: Any) -> Model:
    told: dict[str, Any] = {
        "path": "m.gguf", "name": "m", "architecture": architecture, "fingerprint": "", "size": 0,
        "context_trained": 4096, "n_layer": 2, "n_embd": 128, "n_head": 2, "n_head_kv": (2, 2),
        "head_dim_k": 64, "head_dim_v": 64, "causal": True,
    }  # fmt: skip
    return Model(**(told | changes))


def fields(architecture: str, header: Mapping[str, Any]) -> Fields:
    return Fields({f"{architecture}.{key}": value for key, value in header.items()}, architecture)


def full(
    architecture: str,
    header: Mapping[str, Any],
    tensors: tuple[str, ...] = (),
    **options: object,
) -> dict[str, Any]:
    told = {name.replace("_", "-"): value for name, value in options.items()}
    of = fields(architecture, header)
    found, windows = ropes.ropes(model(architecture), of, tensors, told)
    assert found is not None
    assert windows is not None
    return {**found, "windows": windows}


def test_yarn_comes_from_the_header() -> None:
    found = full("gpt-oss", YARN)
    assert found["ext"] == 1
    assert found["scale"] == 1 / 8
    assert found["trained"] == 1024
    assert (found["beta_fast"], found["beta_slow"]) == (32, 1)
    assert found["attention"] == pytest.approx(1.0)  # what ggml multiplies is cancelled before


def test_without_yarn_its_parameters_do_not_matter() -> None:
    found = full("llama", {"rope.scaling.factor": 4.0})  # of no kind: linear
    assert found["ext"] == 0
    assert found["scale"] == 1 / 4
    assert not found.keys() & {"trained", "beta_fast", "beta_slow"}
    assert full("llama", {"rope.scaling.type": "none", "rope.scaling.factor": 4.0})["scale"] == 1


def test_options_of_llama_cpp_count() -> None:
    """With another base by an option every rope was called wrong."""
    assert full("llama", {}, rope_freq_base=5e5)["base"] == 5e5
    found = full("llama", {}, rope_scaling="yarn", rope_scale=4, yarn_orig_ctx=32768)
    assert (found["ext"], found["scale"], found["trained"]) == (1, 1 / 4, 32768)


@pytest.mark.parametrize("factor", [-8.0, math.inf, math.nan])
def test_a_scaling_that_cannot_be_meant_is_said_so(factor: float) -> None:
    with pytest.raises(BadHeader, match="cannot be meant"):
        full("gpt-oss", YARN | {"rope.scaling.factor": factor})


def test_windows_have_ropes_of_their_own() -> None:
    of_gemma = full("gemma4", {"rope.freq_base": 1e6, "rope.dimension_count": 64,
                               "rope.dimension_count_swa": 32}, ("rope_freqs.weight",))  # fmt: skip
    assert (of_gemma["base"], of_gemma["factors"]) == (1e6, 1)
    windows = of_gemma["windows"]
    assert (windows["base"], windows["dims"], windows["factors"]) == (1e4, 32, 0)
    of_step = full("step35", {"rope.dimension_count": 64})
    assert (of_step["dims"], of_step["windows"]["dims"]) == (32, 64)
    of_olmo = full("olmo2", YARN)["windows"]
    assert (of_olmo["ext"], of_olmo["scale"], of_olmo["attention"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("architecture", "tensor", "header", "handed"),
    [("llama", "", {}, 0), ("llama", "rope_freqs.weight", {}, 1),
     ("phi3", "rope_factors_long.weight", {}, 1), ("qwen2", "rope_freqs.weight", {}, None),
     ("llama", "rope_factors_long.weight", {}, None),
     ("llama", "rope_factors_long.weight", {"rope.scaling.type": "longrope"}, 1)],
)  # fmt: skip
def test_factors_are_handed_over_where_the_file_has_them(
    architecture: str, tensor: str, header: dict[str, Any], handed: int | None
) -> None:
    assert full(architecture, header, (tensor,)).get("factors") == handed


@pytest.mark.parametrize(
    ("architecture", "header", "scale"),
    [("llama", {}, 1 / 8), ("gemma4", {}, 1.0), ("jais", {}, 1 / 64),
     ("granite", {"attention.scale": 0.01}, 0.01), ("granite", {}, 1 / 8),
     ("llama", {"attention.scale": 0.01}, 1 / 8), ("kimi-linear", {}, 1 / 8),
     ("deepseek2", {"attention.key_length_mla": 16}, 1 / 4), ("mimo2", {}, 1 / 8),
     ("mimo2", {"attention.key_length_swa": 32}, None)],
)  # fmt: skip
def test_scales_of_scores(architecture: str, header: dict[str, Any], scale: float | None) -> None:
    found = attention._scale(model(architecture), fields(architecture, header), {})
    assert found == pytest.approx(scale)


def test_latent_attention_is_scaled_by_its_yarn() -> None:
    """DeepSeek V2: ``mscale_all_dim`` of 0.707 and a factor of 40."""
    header = {"rope.scaling.type": "yarn", "rope.scaling.factor": 40.0,
              "rope.scaling.yarn_log_multiplier": 0.0707}  # fmt: skip
    found = attention._scale(model("deepseek2"), fields("deepseek2", header), {})
    assert found == pytest.approx((0.1 * 0.707 * math.log(40) + 1) ** 2 / 8)


def test_fields_that_an_option_overrides_are_not_believed() -> None:
    told = attention._facts(model("llama"), fields("llama", {}), [], {"override-kv": ["a=int:1"]})
    assert told["scale"] is told["ropes"] is told["softcap"] is told["bias"] is None
    assert attention._facts(model("llama"), fields("llama", {}), [], {})["scale"] == 1 / 8


@pytest.mark.parametrize(("layers", "bias"), [(32, 0.0), (40, 8.0)])
def test_the_larger_baichuan_has_a_bias_by_distance(layers: int, bias: float) -> None:
    assert attention._bias(model("baichuan", n_layer=layers), fields("baichuan", {})) == bias
