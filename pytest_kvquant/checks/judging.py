"""Every gate of a path, decided from a cell's figures per chunk."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.budget import Budget, Budgets
from pytest_kvquant.checks.budgets import completed
from pytest_kvquant.checks.declaration import Figures, Given, Path
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.kernels import TokenFigures
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Gate


def judge(
    evidence: Evidence, budgets: Budgets, rules: Rules, path: Path = "prefill"
) -> tuple[Gate, ...]:
    """The gates of a cell on the evidence so far, in the order of the report."""
    seen = figures_per_chunk(evidence, path)
    return judge_figures(seen, evidence.scored, budgets, rules, path)


def judge_figures(
    seen: Figures,
    tokens: int,
    budgets: Budgets,
    rules: Rules,
    path: Path = "prefill",
) -> tuple[Gate, ...]:
    """The gates of a cell from its figures per chunk, of ``tokens`` scored tokens each.

    Budgets that were kept before a gate was declared lack its own: its default holds.
    """
    given = Given(completed(budgets), rules, tokens)
    return tuple(one.judge(seen, given) for one in registry.gates(path))


def owned_gates(keys: Collection[str]) -> frozenset[str]:
    """The absolute gates that count, by the keys of the budgets that do.

    A gate counts with any of its budgets, and with the one that its own follows from.
    """

    def counts(budget: Budget) -> bool:
        return budget.key in keys or (budget.follows is not None and budget.follows[0] in keys)

    return frozenset(one.name for one in registry.gates() if any(map(counts, one.budgets)))


def figures_per_chunk(evidence: Evidence, path: Path = "prefill") -> dict[str, F64]:
    """What gates decide from: each figure of the complete chunks, those that gates declare too."""
    found: dict[str, F64] = dict(evidence.per_chunk()._asdict())
    if not (own := [one for one in registry.gates(path) if one.per_chunk is not None]):
        return found
    tokens = evidence.tokens()
    for one in own:
        assert one.per_chunk is not None
        found[one.name] = np.array(
            [
                one.per_chunk(TokenFigures._make(column[chunk] for column in tokens))
                for chunk in range(evidence.complete)
            ]
        )
    return found


def first_chunks(seen: Mapping[str, F64], chunks: int) -> dict[str, F64]:
    """The figures of the first so many chunks."""
    return {name: values[:chunks] for name, values in seen.items()}
