"""A measured cell that no engine measured, and a gate decided on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.checks.budgets import resolve_budgets
from pytest_kvquant.checks.declaration import ATTRIBUTE, Declaration, Given
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.gate import Gate


def subject(
    pair: str = "q8_0/q4_0",
    *,
    per_chunk: Mapping[str, Sequence[float]] | None = None,
    checks: Sequence[Check] = (),
    budgets: Budgets | None = None,
) -> Subject:
    """A measured cell that no engine measured.

    Args:
        per_chunk: figures by name, one a chunk: ``kl``, ``ln_ppl``, ``tail``, ``flips``, ``top1``.
        checks: what was found before.
        budgets: default: those of the packaged model.

    >>> subject(per_chunk={"kl": [0.01, 0.02]}).cell.per_chunk["kl"]
    (0.01, 0.02)
    """
    parsed = Pair.parse(pair)
    figures = {name: tuple(map(float, values)) for name, values in (per_chunk or {}).items()}
    cell = Cell(pair=pair, verdict="pass", per_chunk=figures, checks=tuple(checks))
    chosen = budgets or resolve_budgets(parsed, embedded=True, overrides={})
    return Subject(pair=parsed, cell=cell, budgets=chosen, others=(cell,))


def decide(
    function: Callable[..., Gate | Check | None],
    on: Subject,
    *,
    rules: Rules | None = None,
    scored: int = 256,
) -> Gate | Check | None:
    """Decide a decorated gate or check on a made-up cell.

    Args:
        rules: of a gate; default: those of a pull request, for as many chunks as there are.
        scored: tokens per chunk that a gate may count with.

    >>> from pytest_kvquant.checks.kl_mean import kl_mean
    >>> decide(kl_mean, subject(per_chunk={"kl": chunks(5.0)})).verdict
    'fail'
    """
    declared = declaration(function)
    if not declared.is_gate:
        return declared.look(on)
    figures = {name: np.asarray(values, np.float64) for name, values in on.cell.per_chunk.items()}
    count = max((len(values) for values in figures.values()), default=1)
    given = Given(on.budgets, rules or Rules(cap=count), scored)
    return declared.judge(figures, given)


def declaration(function: object) -> Declaration:
    """What a decorated gate or check declares: its name, its test, its budget, what it needs.

    Raises:
        TypeError: the function carries no declaration.
    """
    found = getattr(function, ATTRIBUTE, None)
    if not isinstance(found, Declaration):
        raise TypeError(f"{function!r} is not decorated as a gate or a check.")
    return found


def chunks(mean: float, count: int = 16, *, spread: float = 0.1, seed: int = 0) -> list[float]:
    """Figures per chunk around a mean, never negative, the same for the same seed.

    >>> len(chunks(0.01)), abs(sum(chunks(0.01, 4000)) / 4000 - 0.01) < 1e-4
    (16, True)
    """
    random = np.random.default_rng(seed)
    noise = random.gamma(1 / spread**2, spread**2, count)
    return [float(mean * one) for one in noise]
