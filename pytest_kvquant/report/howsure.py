"""The report's section "how sure": the rules of a run, in the words of one statistics course."""

from __future__ import annotations

from pytest_kvquant.numerics.rules import LEAST_CHUNKS, LONG_LOOKS, LOOKS, Rules
from pytest_kvquant.results.conditions import SettingsRecord


def how_sure(shape: SettingsRecord, figures: int) -> tuple[str, ...]:
    """Paragraphs of plain text, in order.

    Args:
        shape: the conditions of the run.
        figures: how many figures were gated in it, over all cells.
    """
    rules = rules_of(shape)
    return (_unit(shape), _fail(rules), _pass(rules), _undecided(shape, rules),
            _many(figures, rules), _limits())  # fmt: skip


def rules_of(shape: SettingsRecord) -> Rules:
    """The rules that the gates of a run followed."""
    census = shape.early and shape.profile == "nightly"
    looks = LONG_LOOKS if census else LOOKS
    return Rules(cap=shape.cap, looks=looks, early=shape.early, census=census)


def _unit(shape: SettingsRecord) -> str:
    return (
        f"What is counted. A chunk is {shape.ctx:,} tokens read from an empty cache, of which the "
        f"last {shape.scored:,} are scored. f16 and the cell read the same chunks, so their "
        "difference is far steadier than either alone. Tokens of one chunk resemble each other, "
        "so a chunk is one observation, however many tokens it has; an error computed from single "
        "tokens, as llama-perplexity prints it, is about two thirds of the true one. The order of "
        f"the chunks ({shape.order}, seed {shape.seed}) is recorded: the same run gives the same "
        "verdicts, and running it again is not a second opinion."
    )


def _fail(rules: Rules) -> str:
    when = "after every chunk" if rules.early else f"once, after {rules.cap} chunks"
    looks = _looks(rules)
    return (
        "When a figure fails. For mean KL, the KL tail and decisive flips, think of a runner who "
        "bets with each chunk that the true figure is over its budget, at odds that are fair if it "
        "is exactly on it. A runner in a fair game who starts with 1 reaches "
        f"{rules.e_threshold:g} at any time with a probability of at most {_percent(rules.alpha)}; "
        f"when this one does, the figure fails. That holds however often one looks: here {when}. "
        "For the perplexity, which can err in both directions, a t interval around the mean of "
        f"the chunks has to lie wholly outside the budget, {looks}."
    )


def _pass(rules: Rules) -> str:
    return (
        "When a figure passes. Not by being under its budget, but by an interval whose "
        f"unfavourable end is under it, {_looks(rules)}; the error of {_percent(rules.alpha)} is "
        "shared equally among the looks that were planned. Intervals allow for chunks that differ "
        "more than independent tokens would. A cell that sits exactly on its budget still passes "
        "in up to one run of eleven; one at 1.2 times the budget in every chunk practically never "
        "does: read a pass as “not 1.2 times the budget, in the chunks that were read”. A fault "
        f"that sits in few chunks has to be met first: {_met(rules)}."
    )


def _undecided(shape: SettingsRecord, rules: Rules) -> str:
    if rules.census:
        return (
            f"When it stays open. After {rules.cap} chunks the plain mean decides: a statement "
            "about these chunks, all of them, not about others. Whether a figure that fails so "
            "counts for the run is asked of its evidence, as everywhere."
        )
    consequence = (
        "Here it fails the test, because strict was asked for."
        if shape.strict
        else "It does not fail the run: the evidence is short, not bad."
    )
    return (
        f"When it stays open. With at most {rules.cap} chunks some figures are neither clearly "
        f"within nor clearly beyond: they are inconclusive, and the report says how many chunks a "
        f"decision would take. {consequence}"
    )


def _many(figures: int, rules: Rules) -> str:
    return (
        f"Many figures at once. This run judged {figures} figures; at {_percent(rules.alpha)} each "
        "some would fail by chance. So the exit code counts a failing figure only if it also "
        "stands among all the others (Holm's correction): a run in which every figure is within "
        f"its budget fails with a probability of at most {_percent(rules.alpha)}, whatever its "
        "size. What would have failed alone is marked."
    )


def _limits() -> str:
    return (
        "What it does not say. The probabilities are about drawing other chunks of this corpus. "
        "Another text, another model or a longer context is another question."
    )


def _met(rules: Rules) -> str:
    """In how few of the chunks a fault may sit and still be met, nearly always."""
    looks = [look for look in rules.schedule if look >= LEAST_CHUNKS] or [rules.cap]
    told = [
        f"{count} chunks meet one that sits in {_percent(round(1 - 0.01 ** (1 / count), 2))} of all"
        for count in dict.fromkeys((looks[0], looks[-1]))
    ]
    return f"with a probability of 99 %, {' and '.join(told)}"


def _looks(rules: Rules) -> str:
    *others, last = rules.schedule
    return f"looked at after {', '.join(map(str, others))} and {last} chunks" if others else (
        f"looked at once, after {last} chunks"
    )  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
