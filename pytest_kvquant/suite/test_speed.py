"""Speed of every K/V pair over that of f16, at every depth."""

from __future__ import annotations

from pytest_kvquant.outcomes.speed import Benchmark, CellSpeed


def test_prefill_speed(kv_speed: CellSpeed, kv_depth: int, benchmark: Benchmark) -> None:
    """Prompts are processed at no less than the floor's share of the speed of f16."""
    kv_speed.check("pp", kv_depth, benchmark)


def test_decode_speed(kv_speed: CellSpeed, kv_depth: int, benchmark: Benchmark) -> None:
    """Tokens are generated at no less than the floor's share of the speed of f16."""
    kv_speed.check("tg", kv_depth, benchmark)
