"""The gates of the prefill path, from a cell's figures per chunk."""

from __future__ import annotations

from pytest_kvquant.checks import gates
from pytest_kvquant.config.budgets import BatchedBudgets, Budgets
from pytest_kvquant.numerics.evidence import ChunkFigures, Evidence
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Gate


def judge(evidence: Evidence, budgets: Budgets, rules: Rules) -> tuple[Gate, ...]:
    """The gates of a cell on the evidence so far, in the order of the report."""
    return judge_figures(evidence.per_chunk(), evidence.scored, budgets, rules)


def judge_figures(
    seen: ChunkFigures, tokens: int, budgets: BatchedBudgets, rules: Rules
) -> tuple[Gate, ...]:
    """The gates of a cell from its figures per chunk, of ``tokens`` scored tokens each."""
    return (
        gates.judge_kl_mean(seen.kl, budgets.kl_mean, rules),
        gates.judge_kl_tail(
            seen.tail,
            budgets.kl_tail,
            rules,
            m_tok=tokens,
            over=budgets.kl_tail_over,
            kl=seen.kl,
        ),
        gates.judge_ln_ppl(seen.ln_ppl, budgets.ln_ppl, rules),
        gates.judge_top1_flips(seen.flips, budgets.top1_flips, rules, m_tok=tokens, kl=seen.kl),
    )
