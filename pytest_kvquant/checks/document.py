"""The documentation of gates and checks, made from their declarations."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_kvquant.checks.budget import Budget
from pytest_kvquant.checks.declaration import Declaration

LEVELS = {
    "census": "before anything is measured",
    "contents": "on the cache's first layer",
    "prefill": "on the prefill path",
    "decode": "on the decode path",
    "trajectory": "on greedy text",
    "shapes": "on batch shapes",
    "matrix": "in the light of all cells",
}
"""When a check is decided, in words."""

RESTS_ON = {
    "census": "the census, the library's log",
    "contents": "rows of the first layer, read back",
    "prefill": "logits by prefill, f16's noise floor",
    "decode": "logits one token at a time",
    "trajectory": "greedy text",
    "shapes": "logits in several batch shapes",
    "workloads": "recall, further texts",
    "kernels": "nodes of live graphs",
    "matrix": "all cells, their census",
}
"""What it is decided from, in words."""


def as_text(one: Declaration) -> str:
    """One declaration for a terminal."""
    lines = [f"{one.title} ({one.name})", *_facts(one), "", one.document]
    return "\n".join(lines)


def as_page(declarations: Iterable[Declaration]) -> str:
    """All of them as a markdown page, with an anchor each."""
    found = list(declarations)
    lines = [
        "# What each test asserts",
        "",
        "Made from the declarations in `checks/`; `kvquant explain NAME` says the same.",
        "",
        "| test | asserts | decided |",
        "| --- | --- | --- |",
        *(f"| [{one.test}](#{one.name}) | {one.summary} | {_when(one)} |" for one in found),
    ]
    for one in found:
        lines += ["", f"({one.name})=", f"## {one.test}", ""]
        lines += [f"- {fact}" for fact in _facts(one)]
        lines += ["", one.document]
    return "\n".join(lines) + "\n"


def _facts(one: Declaration) -> list[str]:
    facts = [f"test: {one.test}", f"decided: {_when(one)}"]
    facts += [f"budget: {budget.key}, {budget.unit}{_unset(budget)}" for budget in one.budgets]
    if one.rule is not None:
        facts.append(f"rule: {one.rule}")
    facts.append(f"rests on {RESTS_ON[one.needs]}; where it was not measured: {one.unseen}")
    return facts


def _unset(budget: Budget) -> str:
    if budget.default is not None:
        return f", {budget.default:g} where none is set"
    if budget.follows is not None:
        return f", {budget.follows[1]:g} times {budget.follows[0]} where none is set"
    return ""


def _when(one: Declaration) -> str:
    return LEVELS.get(one.needs, f"after {one.needs}")
