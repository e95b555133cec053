"""Every gate of a path, decided from a cell's figures per chunk."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
import numpy as np

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.declaration import Figures, Given, Path
from pytest_kvquant.config.budgets import BatchedBudgets
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.kernels import TokenFigures
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Gate


def judge(
    evidence: Evidence, budgets: BatchedBudgets, rules: Rules, path: Path = "prefill"
) -> tuple[Gate, ...]:
    """The gates of a cell on the evidence so far, in the order of the report."""
    seen = figures_per_chunk(evidence, path)
    return judge_figures(seen, evidence.scored, budgets, rules, path)


def judge_figures(
    seen: Figures,
    tokens: int,
    budgets: BatchedBudgets,
    rules: Rules,
    path: Path = "prefill",
) -> tuple[Gate, ...]:
    """The gates of a cell from its figures per chunk, of ``tokens`` scored tokens each.

    Budgets that were kept before a gate was declared lack its own: its default holds.
    """
    if missing := registry.default_budgets().keys() - budgets.more.keys():
        more = {key: registry.default_budgets()[key] for key in missing} | budgets.more
        budgets = msgspec.structs.replace(budgets, more=more)
    given = Given(budgets, rules, tokens)
    return tuple(one.judge(seen, given) for one in registry.gates(path))


def owned_gates(budgets: Collection[str]) -> frozenset[str]:
    """The absolute gates that count, by the budgets that the owner set.

    The tail's bound is half of its budget, and the decode path's budget follows from mean KL's.
    A gate of an installed package brings the budget that its author stands for.
    """
    given = {"kl_tail" if name == "kl_tail_over" else name for name in budgets}
    if "kl_mean" in given:
        given.add("decode_kl_mean")
    given |= registry.default_budgets().keys()
    return frozenset(one.name for one in registry.gates() if one.budget and one.budget.key in given)


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
