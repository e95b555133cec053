"""Cache operations of a pair: what was played, beside what is known and what is declared."""

from __future__ import annotations

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact, listed
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Check

UNEVENTFUL = ("pass", "unsupported")
"""Verdicts of scenarios that say nothing against a pair. One whose server was lost, or whose
machine began to suffer, was not played."""


@check("operations", title="cache operations", test="test_operations", group="kernels",
       needs="kernels", order=7)  # fmt: skip
def operations(subject: Subject) -> Check | None:
    """Shifted, copied, cut, saved, restored and shared caches go on as those of f16 do.

    Why: servers do all of it all day; a build crashed on a context shift with every quantized K.

    A failure means: the operation that the text names in the words of llama.cpp's API.
    """
    found = subject.cell.kernels
    if found is None or not found.scenarios:
        return None
    broken = [one for one in found.scenarios if one.broken]
    wrong = {one.name: one.text for one in broken}
    known = {one.name: one.known for one in broken if one.known}
    declared = subject.declared_scenarios
    played = {one.name for one in found.scenarios}
    gone = sorted((declared & played) - set(wrong))
    complaints = [text for name, text in wrong.items() if name not in {*declared, *known}]
    complaints += [
        f"[expect] declares that {name} fails, and it does not any more" for name in gone
    ]
    if complaints:
        return fact("operations", "fail", listed(complaints))
    refused = [one.name for one in found.scenarios if one.verdict == "unsupported"]
    undecided = [one for one in found.scenarios if not one.broken and one.verdict not in UNEVENTFUL]
    if undecided:
        return fact("operations", "inconclusive", listed([one.text for one in undecided]))
    said = f"{len(played)} scenarios"
    said += f", of which the library cannot {', '.join(refused)}" if refused else ""
    as_declared = sorted(set(wrong) - set(known))
    said += f"; {', '.join(as_declared)} fail as declared" if as_declared else ""
    said += "".join(f"; {name} fails, as is known: {why}" for name, why in known.items())
    return fact("operations", "pass", said)
