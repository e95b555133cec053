"""An emulation that fails before its first chunk of the decode path leaves the gate open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from pytest_kvquant.checks.budgets import resolve_budgets
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.kernels import compare_rows
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.session.judging import Judge

PAIR = Pair("q8_0", "q8_0")


def test_nothing_emulated_is_open_and_says_why() -> None:
    """dots3note: its rows could not be emulated, and the pair ended in an error of our own."""
    measured, empty = (Evidence(4, 8, tail_over=0.1, tie_band=0.0) for _ in range(2))
    rows = np.random.default_rng(0).normal(size=(2, 8, 5)).astype(np.float32)
    for chunk in range(4):
        measured.put(chunk, 0, compare_rows(rows[0], rows[1], np.zeros(8, np.int32)))
    budgets = resolve_budgets(PAIR, embedded=False, overrides={})
    judge = Judge(budgets, frozenset(), Rules(), noise=0.0, identity=False)
    healthy = cast(Any, SimpleNamespace(decode=empty, problem="its worker died"))
    (gate,) = judge.decode(measured, healthy, (4,)).counted
    assert gate.verdict == "inconclusive"
    assert "its worker died" in gate.rule
