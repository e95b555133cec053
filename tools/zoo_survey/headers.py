"""A header for every architecture: all keys that any reads, with a few set for some.

An architecture reads the keys that it knows and leaves the rest. The sizes are the least that the
kernels take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pytest_kvquant.zoo.declaration import Value

LAYERS: Final = 2
EMBEDDING: Final = 256
HEADS: Final = 2
VOCABULARY: Final = 320
CONTEXT: Final = 4096
WINDOW: Final = 64

LATENT: Final[Mapping[str, Value]] = {
    "embedding_length": 128,
    "feed_forward_length": 192,
    "attention.head_count": 1,
    "attention.head_count_kv": 1,
    "attention.key_length": 576,
    "attention.value_length": 512,
    "attention.key_length_mla": 192,
    "attention.value_length_mla": 128,
    "rope.dimension_count": 64,
}
"""One compressed K per token."""

HALF_ATTENTION: Final[Mapping[str, Value]] = {
    "attention.head_count": [HEADS, 0],
    "attention.head_count_kv": [HEADS, 0],
}
"""The second layer is recurrent."""

LATENT_HALF: Final[Mapping[str, Value]] = {
    **LATENT,
    "attention.head_count": [1, 0],
    "attention.head_count_kv": [1, 0],
}

ALTERNATE_WINDOWS: Final[Mapping[str, Value]] = {
    "attention.sliding_window_pattern": [False, True],
}

OWN: Final[Mapping[str, Mapping[str, Value]]] = {
    "llama4": {"block_count": 4},
    "gemma4": {
        "block_count": 5,
        "embedding_length_per_layer_input": 64,
        "attention.key_length": 128,
        "attention.value_length": 128,
        "attention.key_length_swa": 64,
        "attention.value_length_swa": 64,
        "rope.dimension_count": 128,
        "rope.dimension_count_swa": 64,
        "attention.shared_kv_layers": 1,
        "attention.sliding_window_pattern": [True, True, True, False, True],
    },
    "gemma3n": {"block_count": 22, "embedding_length": 64, "attention.head_count": 1,
                "attention.head_count_kv": 1, "feed_forward_length": 96},
    "deepseek4": {
        "block_count": 4, "embedding_length": 512, "attention.head_count": 8,
        "attention.head_count_kv": 1, "attention.key_length": 64, "attention.value_length": 64,
        "rope.dimension_count": 32, "attention.q_lora_rank": 64, "expert_gating_func": 4,
        "attention.output_group_count": 8, "attention.output_lora_rank": 32,
        "attention.compress_ratios": [0, 0, 4, 128],
        "attention.compress_rope_freq_base": 160000.0, "hash_layer_count": 0,
        "swiglu_clamp_exp": 10.0, "expert_weights_scale": 1.0, "expert_weights_norm": True,
    },
    "deepseek2": LATENT,
    "deepseek32": LATENT,
    "glm-dsa": LATENT,
    "mistral4": LATENT,
    "dots3note": {
        **LATENT,
        **ALTERNATE_WINDOWS,
        "attention.kv_lora_rank_swa": 512,
        "attention.key_length_swa": 576,
        "attention.value_length_swa": 512,
        "attention.key_length_mla_swa": 192,
        "attention.value_length_mla_swa": 128,
        "rope.freq_base_swa": 10000.0,
        "attention.indexer.types": [1, 0],
    },
    "granite_swa": ALTERNATE_WINDOWS,
    "spark2_5": ALTERNATE_WINDOWS,
    "muse-glimmer": ALTERNATE_WINDOWS,
    "hrm_text": {"block_count": 6, "hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2},
    "graniteswitch": {"adapters.count": 2, "adapters.lora_rank": 8,
                      "adapters.token_ids_activate": [300, 301],
                      "adapters.token_ids_substitute": [302, 303]},
    "qwen4exp": {"ssm.inner_size": 256, "attention.indexer.key_length": EMBEDDING // HEADS,
                 "attention.compress_ratios": [4, 4]},
    "hy_v4": {
        **LATENT,
        "swiglu_clamp_exp": 10.0, "expert_weights_scale": 1.0, "expert_weights_norm": True,
        "attention.indexer.types": [1, 0], "hyper_connection.magnitude": 2.0,
    },
    "kimi-linear": LATENT_HALF,
    "kimi-k3": LATENT_HALF,
    "bailingmoe3": {**LATENT_HALF, "rope.dimension_sections": [8, 12, 12, 0],
                    "swiglu_clamp_exp": [0.0, 4.0], "swiglu_clamp_shexp": [0.0, 5.0]},
    "glm5-next": {**LATENT, "attention.head_count_kv": [1, 0], "attention.key_length": 512,
                  "rope.dimension_count": 0},
    "plamo2": {**HALF_ATTENTION, "ssm.group_count": 0},
    "jamba": HALF_ATTENTION,
    "nemotron_h": {**HALF_ATTENTION, "block_count": 3, "attention.head_count": [HEADS, 0, HEADS],
                   "attention.head_count_kv": [HEADS, 0, 0], "feed_forward_length": [0, 0, 384]},
    "nemotron_h_moe": {**HALF_ATTENTION, "block_count": 3,
                       "attention.head_count": [HEADS, 0, HEADS],
                       "attention.head_count_kv": [HEADS, 0, 0],
                       "feed_forward_length": [0, 0, 384]},
    "granitehybrid": HALF_ATTENTION,
    "lfm2": HALF_ATTENTION,
    "lfm2moe": HALF_ATTENTION,
    "minimax-m3": {"rope.dimension_count": 64, "attention.indexer.head_count": HEADS},
    "cohere2moe": ALTERNATE_WINDOWS,
    "mimo2": ALTERNATE_WINDOWS,
    "step35": ALTERNATE_WINDOWS,
    "plm": {"attention.key_length": 192, "attention.value_length": 128, "rope.dimension_count": 64},
    "chameleon": {"vocab_size": 10240},
    "qwen3next": {"ssm.inner_size": 256},
    "qwen35": {"ssm.inner_size": 256},
    "qwen35moe": {"ssm.inner_size": 256},
    "maple": {**ALTERNATE_WINDOWS, "swiglu_clamp_exp": 7.0},
}  # fmt: skip
"""What an architecture needs otherwise."""


def header(architecture: str, *, experts: bool) -> dict[str, Value]:
    """All keys; with those of a mixture of experts where ``experts``."""
    own = OWN.get(architecture, {})
    found = {**_common(), **(_experts() if experts else {}), **own}
    layers = found["block_count"]
    assert isinstance(layers, int)
    return found


def _common() -> dict[str, Value]:
    share = EMBEDDING // HEADS
    return {
        **_attention(share),
        **_recurrent(),
        **_rest(),
        "vocab_size": VOCABULARY,
        "context_length": CONTEXT,
        "embedding_length": EMBEDDING,
        "features_length": EMBEDDING,
        "block_count": LAYERS,
        "leading_dense_block_count": 1,
        "feed_forward_length": 384,
        "use_parallel_residual": False,
        "logit_scale": 1.0,
    }


def _attention(share: int) -> dict[str, Value]:
    return {
        "attention.head_count": HEADS,
        "attention.head_count_kv": HEADS,
        "attention.max_alibi_bias": 8.0,
        "attention.clamp_kqv": 1.0,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.group_norm_epsilon": 1e-5,
        "attention.group_norm_groups": 8,
        "attention.q_lora_rank": 512,
        "attention.kv_lora_rank": 512,
        "attention.relative_buckets_count": 8,
        "attention.decay_lora_rank": 64,
        "attention.iclr_lora_rank": 64,
        "attention.value_residual_mix_lora_rank": 64,
        "attention.gate_lora_rank": 64,
        "attention.sliding_window": WINDOW,
        "attention.sliding_window_pattern": 2,
        "attention.indexer.head_count": 64,
        "attention.indexer.key_length": 128,
        "attention.indexer.top_k": 131072,
        "attention.indexer.block_size": 4,
        "attention.indexer.local_blocks": 1,
        "attention.indexer.kpool": 4,
        "attention.indexer.kpool_select_tail": True,
        "rope.dimension_sections": [share // 4] * 4,
        "rope.scaling.original_context_length": CONTEXT,
    }


def _recurrent() -> dict[str, Value]:
    return {
        "full_attention_interval": 2,
        "time_mix_extra_dim": 64,
        "time_decay_extra_dim": 128,
        "ssm.inner_size": 2 * EMBEDDING,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.time_step_rank": HEADS,
        "ssm.group_count": 2,
        "kda.head_dim": 128,
        "kda.safe_gate": True,
        "kda.gate_lower_bound": -5.0,
        "wkv.head_size": EMBEDDING // HEADS,
        "shortconv.l_cache": 3,
    }


def _rest() -> dict[str, Value]:
    return {
        "hyper_connection.count": 4,
        "hyper_connection.sinkhorn_iterations": 2,
        "hyper_connection.epsilon": 1e-6,
        "hyper_connection.low_rank": 8,
        "posnet.embedding_length": EMBEDDING,
        "posnet.block_count": LAYERS,
        "convnext.embedding_length": EMBEDDING,
        "convnext.block_count": LAYERS,
        **{f"xielu.{name}": 1.0 for name in ("alpha_n", "alpha_p", "beta", "eps")},
        "tokenizer.ggml.token_type_count": 2,
        "residual_scale": 3.5565588,
        "attn_res.block_size": 12,
        "activation.situ_beta": 4.0,
        "activation.situ_linear_beta": 25.0,
    }


def _experts() -> dict[str, Value]:
    return {
        "expert_feed_forward_length": 384,
        "expert_shared_feed_forward_length": 192,
        "expert_latent_length": 384,
        "interleave_moe_layer_step": 2,
        "expert_count": 2,
        "expert_used_count": 2,
        "expert_shared_count": 1,
        "expert_gating_func": 2,
        "expert_group_scale": 1.0,
        "experts_per_group": 1,
    }
