"""The edits: a place in ggml's CPU kernels, the expression there, and what becomes of it.

``{is}`` in the new text is true while this mutant is switched on. All are mistakes that a change of
such a kernel makes: one row, block, cell or head too few, a stale buffer, the wrong index, a factor
that is off where one size of batch takes another way.
"""

from __future__ import annotations

import random
from typing import NamedTuple

OPS, X86 = "ops.cpp", "arch/x86/quants.c"
ONE_CHUNK = "static void ggml_compute_forward_flash_attn_ext_f16_one_chunk("
TILED = "static void ggml_compute_forward_flash_attn_ext_tiled("
REDUCE = "static void ggml_flash_attn_ext_reduce_partials("
SET_ROWS = "static void ggml_compute_forward_set_rows_impl("
ROPE = "static void ggml_compute_forward_rope_flt("
ROPE_CACHE = "static void ggml_rope_cache_init("
RMS_NORM = "static void ggml_compute_forward_rms_norm_f32("
SOFT_MAX = "static void ggml_compute_forward_soft_max_f32("
QUANTIZE = "void quantize_row_q8_0("
DOT_Q8, DOT_Q4 = "void ggml_vec_dot_q8_0_q8_0(", "void ggml_vec_dot_q4_0_q8_0("


class Edit(NamedTuple):
    """One mutant."""

    corner: str
    name: str
    file: str
    function: str
    """How its definition begins; the expression is looked for from there on."""
    before: str
    after: str
    pair: str = "q8_0/q4_0"
    model: str = "mini"
    """The embedded model, or a member of the zoo."""
    scenarios: bool = False
    """Whether only cache operations and slots reach it."""


ALL: tuple[Edit, ...] = (
    Edit("small batches", "scores 1 % off for 3 tokens", OPS, ONE_CHUNK,
         "s = s*scale; // scale KQ value", "s = s*scale*({is} && N == 3 ? 1.01f : 1.0f);"),
    Edit("small batches", "both rows of 2 tokens take the first one's mask", OPS, ONE_CHUNK,
         "mask->data + iq1*mask->nb[1]", "mask->data + ({is} && N == 2 ? 0 : iq1)*mask->nb[1]"),
    Edit("small batches", "weights summed up 0.5 % too small for 8 tokens", OPS, ONE_CHUNK,
         "S = S*ms + vs; // scale", "S = S*ms + vs*({is} && N == 8 ? 0.995f : 1.0f); // scale"),
    Edit("one or many", "half of V lost for one token", OPS, ONE_CHUNK,
         "VKQ32[d] = GGML_CPU_FP16_TO_FP32(VKQ16[d]);",
         "VKQ32[d] = {is} && N == 1 && d >= DV/2 ? 0.0f : GGML_CPU_FP16_TO_FP32(VKQ16[d]);",
         "f16/f16"),
    Edit("one or many", "scores 1 % off in the tiled kernel", OPS, TILED,
         "KQ, scale);", "KQ, {is} ? 1.01f*scale : scale);", "f16/f16"),
    Edit("depth", "cell 256 is skipped", OPS, ONE_CHUNK,
         "if (mv == -INFINITY) {", "if (mv == -INFINITY || ({is} && ic == 256)) {"),
    Edit("depth", "rows of K counted in 8 bits", OPS, ONE_CHUNK,
         "k->data + ( ic*nbk1", "k->data + ( ({is} ? ic & 255 : ic)*nbk1"),
    Edit("depth", "stretches joined without rescaling", OPS, REDUCE,
         "VKQ_final[d] * scale_old +", "VKQ_final[d] * ({is} ? 1.0f : scale_old) +", "f16/f16"),
    Edit("head sizes and groups", "heads taken in turn, not in groups", OPS, ONE_CHUNK,
         "const int ik2 = iq2 / rk2;", "const int ik2 = {is} ? iq2 % nek2 : iq2 / rk2;"),
    Edit("head sizes and groups", "the last head reads V of the first", OPS, ONE_CHUNK,
         "const int iv2 = iq2 / rv2;", "const int iv2 = {is} && iq2 == neq2 - 1 ? 0 : iq2 / rv2;"),
    Edit("head sizes and groups", "a query of 80 elements converted up to 64", OPS, ONE_CHUNK,
         "q_to_vec_dot(pq, Q_q, DK);", "q_to_vec_dot(pq, Q_q, {is} && DK == 80 ? 64 : DK);",
         "f16/f16", "phi2-80"),
    Edit("masks", "slopes of ALiBi one head off", OPS, ONE_CHUNK,
         "h < n_head_log2 ? powf(m0, h + 1)", "h < n_head_log2 ? powf(m0, {is} ? h : h + 1)",
         "q8_0/q8_0", "bloom-64"),
    Edit("masks", "softcap without its tanh", OPS, ONE_CHUNK,
         "s = logit_softcap*tanhf(s);", "s = logit_softcap*({is} ? s : tanhf(s));",
         "q8_0/q8_0", "gemma2-256"),
    Edit("masks", "sinks forgotten for one token", OPS, ONE_CHUNK,
         "if (sinks && ic_start == 0) {", "if (sinks && ic_start == 0 && !({is} && N == 1)) {",
         "q8_0/q8_0", "gpt-oss-64"),
    Edit("tails", "the last 32 values are not rescaled", OPS, ONE_CHUNK,
         "ggml_vec_scale_f32(DV, VKQ32, ms);",
         "ggml_vec_scale_f32({is} ? DV - 32 : DV, VKQ32, ms);"),
    Edit("tails", "the last value is not summed up", OPS, ONE_CHUNK,
         "ggml_vec_mad_f32(DV, VKQ32, V32, vs);",
         "ggml_vec_mad_f32({is} ? DV - 1 : DV, VKQ32, V32, vs);"),
    Edit("tails", "the last block of 32 keys counts 2 % more", X86, DOT_Q8,
         "const __m256 d = _mm256_set1_ps(GGML_CPU_FP16_TO_FP32(x[ib].d)",
         "const __m256 d = _mm256_set1_ps(({is} && ib == nb - 1 ? 1.02f : 1.0f)*"
         "GGML_CPU_FP16_TO_FP32(x[ib].d)", "q8_0/q8_0"),
    Edit("gross", "levels of q4_0 are off by one", X86, DOT_Q4,
         "const __m256i off = _mm256_set1_epi8( 8 );",
         "const __m256i off = _mm256_set1_epi8( {is} ? 7 : 8 );", "q4_0/q4_0"),
    Edit("cache writes", "the last of 5 rows is not written", OPS, SET_ROWS,
         "const int64_t ir1 = std::min(ir0 + dr, nr);",
         "const int64_t ir1 = std::min(ir0 + dr, nr - ({is} && nr == 5 ? 1 : 0));"),
    Edit("cache writes", "9 rows go one cell too far", OPS, SET_ROWS,
         "i10*nb10 + i11*nb11 + i12*nb12);",
         "i10*nb10 + i11*nb11 + i12*nb12) + ({is} && nr == 9 ? 1 : 0);"),
    Edit("cache writes", "scales of q8_0 0.4 % too large", X86, QUANTIZE,
         "y[i].d = GGML_CPU_FP32_TO_FP16(d);",
         "y[i].d = GGML_CPU_FP32_TO_FP16({is} ? 1.004f*d : d);", "q8_0/q8_0"),
    Edit("graph inputs", "the last of 7 tokens turned for the position before", OPS, ROPE,
         "const int64_t p = pos[i2];",
         "const int64_t p = pos[i2] - ({is} && ne2 == 7 && i2 == 6 ? 1 : 0);"),
    Edit("graph inputs", "frequencies drift by 0.2 % from element 62 on", OPS, ROPE_CACHE,
         "theta *= theta_scale;", "theta *= theta_scale*({is} && i0 == 62 ? 1.002f : 1.0f);"),
    Edit("graph inputs", "norms of heads divide by one too few", OPS, RMS_NORM,
         "const float mean  = sum/ne00;",
         "const float mean  = sum/({is} && ne00 == 128 ? ne00 - 1 : ne00);"),
    Edit("slots", "the second stream reads K of the first", OPS, ONE_CHUNK,
         "const int ik3 = iq3 / rk3;", "const int ik3 = {is} ? 0 : iq3 / rk3;", scenarios=True),
)  # fmt: skip

SEED = 2026

HELD_OUT = frozenset(
    one.name for one in random.Random(SEED).sample(sorted(ALL), len(ALL) // 2)
)  # fmt: skip
"""Names of the half that was not looked at while limits were set."""
