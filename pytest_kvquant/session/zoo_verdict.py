"""What a pair's findings on a member of the zoo mean.

No budget made for language is asked: the weights are random. ``[expect] fails`` is about the user's
own model, and is held against that; a member may show the same fault, and need not. What fails on
members alone is declared by their names (``zoo``), and must happen there.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.declared import SCENARIOS, as_declared, gone_verdicts
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.kernels import Examination
from pytest_kvquant.results.zoo import ZooCell
from pytest_kvquant.zoo.declaration import Member


class Declared(NamedTuple):
    """Names that ``[expect]`` declares to fail for a pair."""

    here: frozenset[str] = frozenset()
    """On this member: when it does not any more, that is told."""
    elsewhere: frozenset[str] = frozenset()
    """On the user's model: it may fail here, too."""


def judged(
    member: Member,
    pair: Pair,
    found: Examination,
    control: Examination,
    declared: Declared,
    *,
    off_device: bool = False,
) -> ZooCell:
    """The cell of a pair on a member.

    Args:
        control: of f16.
    """
    checks = _checks(pair, found, control, declared, off_device=off_device)
    blank = ZooCell(
        member=member.name, pair=str(pair), architecture=member.architecture,
        like=member.like, head_k=member.head_k, head_v=member.head_v, group=member.group,
        features=member.features, verdict="pass", text="", checks=checks, kernels=found,
    )  # fmt: skip
    problem = found.problem or ""
    word = problem.partition(":")[0]
    if problem and word in declared.here | declared.elsewhere:
        return _replaced(blank, "unsupported", f"as [expect] says: {problem}")
    if word == "unsupported":
        return _replaced(blank, "unsupported", problem)
    wrong = [check.text for check in checks if check.verdict == "fail"]
    if not problem:
        wrong += gone_verdicts(declared.here)
    open_ = [check.text for check in checks if check.verdict == "inconclusive"]
    if wrong or problem:
        return _replaced(blank, "fail", "; ".join(wrong) or problem)
    return _replaced(blank, "inconclusive", "; ".join(open_)) if open_ else blank


def _checks(
    pair: Pair, found: Examination, control: Examination, declared: Declared, *, off_device: bool
) -> tuple[Check, ...]:
    broken = {SCENARIOS + one.name for one in found.scenarios if one.broken and not one.known}
    subject = Subject(
        pair=pair,
        cell=Cell(pair=str(pair), verdict="pass", kernels=found),
        budgets={},
        off_device=off_device,
        reference_kernels=control,
        declared=declared.here | (declared.elsewhere & broken),
    )
    made = [one.look(subject) for one in registry.checks_that_need("kernels")]
    return tuple(
        as_declared(
            one, declared.here | (declared.elsewhere if one.verdict == "fail" else frozenset())
        )
        for one in made
        if one is not None
    )


def _replaced(cell: ZooCell, verdict: str, text: str) -> ZooCell:
    return msgspec.structs.replace(cell, verdict=verdict, text=text)
