"""Queries as CUDA's vector kernels round them: the model beside a transcription of the kernel."""

from __future__ import annotations

import numpy as np
import pytest
from support import cuda_vector_kernel as kernel

from pytest_kvquant.engine.child.attention_inputs import Operands
from pytest_kvquant.engine.child.attention_noise import FACTOR, Types, noise_of
from pytest_kvquant.engine.child.judge_attention import against_arithmetic
from pytest_kvquant.numerics import attention, query_rounding
from pytest_kvquant.numerics.attention import Scores

KINDS = sorted(query_rounding.ON_CUDA)


def example(kind: str, seed: int, *, size: int = 128, cells: int = 60):
    """A head of attention that the kernel computed: what the oracle is handed of it."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=(count, size)) for count in (2, cells, cells))
    q += rng.normal(size=size)  # elements of a query have no mean of 0
    blocks = kernel.quantize(k, kind)
    v = v.astype(np.float16).astype(np.float64)
    scale = float(np.float32(1 / np.sqrt(size)))
    out = np.stack([kernel.attend(row, blocks, v, scale, kind) for row in q.astype(np.float32)])
    return Operands(
        q.astype(np.float32).astype(np.float64),
        blocks.floats().astype(np.float64), v, np.zeros((2, cells)), out.astype(np.float64),
        Scores(scale),
    )  # fmt: skip


def error(head: Operands, q, k) -> float:
    return attention.misfit(
        head.out, attention.attend(q, k, head.v, head.mask, head.how)
    ).error  # fmt: skip


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_what_the_kernel_computes(kind: str, size: int) -> None:
    """Rounding the query alone leaves up to 1e-3 (q4_0): the limit for healthy was too narrow."""
    head = example(kind, size, size=size)
    modelled = query_rounding.as_vector_kernels(head.q, head.k, kind, head.how.scale)
    plain = query_rounding.rounded_to_eights(head.q, scale_in_half=False)
    assert error(head, *modelled) < 1e-11
    if kind != "q8_0":
        assert error(head, plain, head.k) > 1e4 * error(head, *modelled)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_vector_kernel_is_right(kind: str, seed: int) -> None:
    ratio, _ = against_arithmetic(example(kind, seed), Types(kind, "f16"), on_cpu=False)
    assert ratio <= 1


@pytest.mark.parametrize("change", ["scores", "values"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_percent_of_one_head_is_wrong(kind: str, change: str) -> None:
    head = example(kind, 3)
    if change == "values":
        wrong = head._replace(out=head.out * 1.01)
    else:
        how = head.how._replace(scale=1.01 * head.how.scale)
        taken = query_rounding.as_vector_kernels(head.q, head.k, kind, how.scale)
        wrong = head._replace(out=attention.attend(*taken, head.v, head.mask, how).out)
    ratio, _ = against_arithmetic(wrong, Types(kind, "f16"), on_cpu=False)
    assert ratio > 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_is_not_above_five_modelled_errors(kind: str) -> None:
    """An error that is as large as the limit allows, in a direction of its own, is the most."""
    head = example(kind, 5)
    taken = query_rounding.as_vector_kernels(head.q, head.k, kind, head.how.scale)
    meant = attention.attend(*taken, head.v, head.mask, head.how)
    noise = noise_of(meant, head, Types(kind, "f16"), on_cpu=False)
    rng = np.random.default_rng(0)
    off = rng.normal(size=meant.out.shape)
    off *= np.sqrt(1.2 * FACTOR * noise / np.square(off).sum(axis=1))[:, None]
    ratio, _ = against_arithmetic(
        head._replace(out=meant.out + off), Types(kind, "f16"), on_cpu=False
    )
    assert ratio > 1


def test_rows_that_are_no_blocks_are_left_alone() -> None:
    q, k = np.ones((1, 40)), np.ones((3, 40))
    assert query_rounding.as_vector_kernels(q, k, "q4_0", 0.1) == (q, k)


def test_a_query_of_zeros_stays_one() -> None:
    q, k = np.zeros((1, 64)), np.ones((3, 64))
    taken, keys = query_rounding.as_vector_kernels(q, k, "q4_0", 0.1)
    assert not (taken @ keys.T).any()
