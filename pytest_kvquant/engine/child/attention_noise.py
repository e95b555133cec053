"""Child side: what kernels round on their way, and how wrong that makes a healthy one."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.child.attention_inputs import Operands
from pytest_kvquant.numerics import attention, query_rounding
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.attention import squares
from pytest_kvquant.numerics.half_sums import products_in_half

FACTOR = 5.0
"""A row may be so many times as wrong as arithmetic models it."""

SINGLE_UNIT = 2.0**-25
"""Half a spacing of f32, relative: one rounding."""

HALF_UNIT = 2.0**-12
"""The same of f16: on GPUs products of queries and keys are made in f16 or kept in it."""


class Types(NamedTuple):
    """Of the cache, and what the processor does with f16."""

    k: str
    v: str
    adds_in_half: bool = False


class Taken(NamedTuple):
    """Queries and keys as a kernel takes them."""

    q: F64
    k: F64
    with_levels: Callable[[F64], tuple[F64, F64]] | None = None
    """The same where some of a query's 8-bit levels are known; ``None``: it has none."""


def roundings(given: Operands, k_type: str, *, on_cpu: bool) -> Iterator[Taken]:
    """What kernels may make of the queries before they meet the keys, the likeliest first.

    On a CPU f16 keys meet f16 queries, q-types 8-bit ones; on GPUs f16 or f32 as the kernel's
    family has it, and blocks of 8 bits (q8_1) for q-types and few queries.
    """
    exact = Taken(given.q, given.k)
    if k_type in ("f32", "f16"):
        first, second = exact, _halves(given)
        yield from (first, second) if k_type == "f32" or not on_cpu else (second, first)
    elif k_type == "bf16":
        yield from (Taken(_brain(given.q), given.k), exact, _halves(given))
    elif not on_cpu:
        yield _halves(given)
        if k_type in query_rounding.ON_CUDA:
            vector = functools.partial(
                query_rounding.as_vector_kernels, given.q, given.k, k_type, given.how.scale
            )
            yield _rounded(vector)
        yield from (_eights(given, scale_in_half=False), _eights(given, scale_in_half=True), exact)
    elif k_type.startswith(("q", "iq", "mxfp", "nvfp", "tq")):
        if k_type.endswith("_1"):
            yield _rounded(functools.partial(query_rounding.with_offsets, given.q, given.k))
        yield from (_eights(given, scale_in_half=True), _eights(given, scale_in_half=False))
        yield from (exact, _halves(given))
    else:
        yield exact
        yield from (_eights(given, scale_in_half=True), _eights(given, scale_in_half=False))
        yield _halves(given)


def _halves(given: Operands) -> Taken:
    return Taken(given.q.astype(np.float16).astype(np.float64), given.k)


def _eights(given: Operands, *, scale_in_half: bool) -> Taken:
    def rounded(levels: F64 | None = None) -> tuple[F64, F64]:
        q = query_rounding.rounded_to_eights(given.q, scale_in_half=scale_in_half, levels=levels)
        return q, given.k

    return _rounded(rounded)


def _rounded(way: Callable[..., tuple[F64, F64]]) -> Taken:
    return Taken(*way(), way)


def _brain(q: F64) -> F64:
    bits = q.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.asarray(rounded.astype(np.uint32).view(np.float32), np.float64)


@functools.cache
def adds_in_half() -> bool:
    """Whether this processor computes in f16: ggml then sums queries times f16 keys in it.

    See ``GGML_F16_VEC`` in ggml's ``simd-mappings.h``. A build for older processors does not, and
    is allowed more than it needs.
    """
    core = "_core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "core"
    asked = importlib.import_module(f"numpy.{core}._multiarray_umath")
    features = getattr(asked, "__cpu_features__", {})
    return any(features.get(name) for name in ("AVX512FP16", "ASIMDHP"))


def noise_of(meant: attention.Attended, given: Operands, types: Types, *, on_cpu: bool) -> F64:
    """Squared error that arithmetic models for each row.

    A CPU sums f16 values in f16, all others in f32; products with f16 keys in f16 where it can. On
    GPUs the family of the kernel decides, and scores, weights and unpacked rows are f16.
    """
    longest = squares(given.k).max(axis=-1, keepdims=True, initial=0)
    size = np.sqrt(squares(given.q) * longest)
    largest = np.abs(given.how.scale) * size
    if not on_cpu:
        per_score = HALF_UNIT * np.maximum(1.0, largest)
        moved = squares(meant.by_score) + squares(meant.out) * 1e-2
    else:  # a sum of d products, rounded d times to its own size
        per_score = SINGLE_UNIT * np.sqrt(given.q.shape[-1]) * largest
        moved = squares(meant.by_score) + meant.by_each_score
    by_scores = np.square(np.minimum(per_score, 1.0) + 8 * SINGLE_UNIT) * moved
    if on_cpu and types.v != "f16":
        return np.asarray(meant.singles + by_scores) + 1e-30
    return np.asarray(meant.halves + meant.weights_in_half + by_scores) + 1e-30


def by_products(given: Operands, types: Types, *, on_cpu: bool) -> F64:
    """What products summed in f16 add to it, each score by itself; mostly zeros.

    However queries are rounded: it is the same for all of :func:`roundings`.
    """
    if on_cpu and types.k == "f16" and types.adds_in_half:
        return products_in_half(given.q, given.k, given.v, given.mask, given.how)
    return np.zeros(given.q.shape[:-1])
