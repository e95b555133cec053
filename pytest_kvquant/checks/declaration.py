"""How a gate or a check is declared: one decorator, in its own file.

A **gate** weighs chance: it has one figure per chunk, a budget, and a rule that decides. A
**check** states a fact about a cell. What is declared here is all that collection, budgets, JSON,
reports and the documentation know of it; :mod:`pytest_kvquant.checks.registry` finds it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, cast

from pytest_kvquant.checks.budget import Budget, Budgets, of_chunks
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.kernels import TokenFigures
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.gate import Gate

ATTRIBUTE = "kvquant_declaration"
"""Where a decorated function carries its declaration."""

Path = Literal["prefill", "decode"]
Needs = Literal[
    "census",
    "contents",
    "prefill",
    "decode",
    "trajectory",
    "shapes",
    "workloads",
    "kernels",
    "matrix",
]
"""What has to be measured before it can be decided, in the order in which a cell is measured;
``matrix``: all cells."""

NEEDS: tuple[Needs, ...] = (
    "census", "contents", "prefill", "decode", "trajectory", "shapes", "workloads", "kernels",
    "matrix",
)  # fmt: skip

Rule = Literal["mean", "share", "two-sided mean"]
"""How a gate decides, and so how often it errs: the mean per chunk under a betting e-value, a share
of tokens under the same, or a mean per chunk that may lie on either side. ``tools/error_rates``
simulates each rule, not each gate."""

Unseen = Literal["inconclusive", "not made"]
"""What a check says where nothing was measured of what it rests on. It never passes."""


class Given(NamedTuple):
    """What a gate decides with, beside its figures."""

    budgets: Budgets
    rules: Rules
    scored: int
    """Tokens per chunk."""


Figures = Mapping[str, F64]
"""Per chunk, shape ``(chunks,)`` each: ``kl``, ``ln_ppl``, ``tail``, ``flips``, ``top1``,
``nll_cell``, ``nll_reference``, and those that gates declare, by the gate's name."""

Decide = Callable[[Figures, Given], Gate]
Inspect = Callable[[Subject], "Check | None"]
PerChunk = Callable[[TokenFigures], float]


class Declaration(NamedTuple):
    """A gate or a check, as declared."""

    name: str
    """In JSON, budgets and reports."""
    title: str
    """For people, in a sentence."""
    test: str
    """Of the suite."""
    group: str
    """File of the suite that the test is collected from, without ``test_``."""
    needs: Needs
    order: int
    """Among those that need the same."""
    budgets: tuple[Budget, ...]
    """What it holds its figure against, then what bounds it; of a check: none, as a rule."""
    per_chunk: PerChunk | None
    """The gate's own figure of one chunk, from its tokens (columns of shape ``(scored,)``)."""
    decide: Decide | Inspect
    """The function that was decorated."""
    short: str
    """For people, where a cell of a table has room for a word or two."""
    rule: Rule | None
    """Of a gate."""
    unseen: Unseen
    """Of a gate always ``not made``: there are no figures without its path."""

    @property
    def is_gate(self) -> bool:
        """Whether it weighs chance, and counts among the figures of the run."""
        return self.rule is not None

    def judge(self, seen: Figures, given: Given) -> Gate:
        """Decide a gate."""
        return cast("Decide", self.decide)(seen, given)

    def look(self, subject: Subject) -> Check | None:
        """Decide a check; ``None`` where it does not apply."""
        return cast("Inspect", self.decide)(subject)

    @property
    def document(self) -> str:
        """Its documentation: the docstring of the function that was declared."""
        return inspect.getdoc(self.decide) or ""

    @property
    def summary(self) -> str:
        """The first line of it: what the test asserts."""
        return self.document.partition("\n")[0]


def gate(
    name: str,
    *,
    title: str,
    test: str,
    budget: Budget,
    bounds: tuple[Budget, ...] = (),
    group: str = "extensions",
    path: Path = "prefill",
    order: int = 100,
    per_chunk: PerChunk | None = None,
    short: str = "",
    rule: Rule = "mean",
) -> Callable[[Decide], Decide]:
    """Declare a gate.

    Args:
        budget: what its figure is held against.
        bounds: further ones that define the figure: nats from which on a token counts.
        per_chunk: a figure that the chunks' own do not have; found by the gate's name then.
        short: its title where there is little room; its name, if none is given.

    Raises:
        TypeError: the budget of a gate of the prefill path says neither ``default`` nor
            ``rounded``.
    """
    if path == "prefill" and budget.rounded is None:
        if budget.default is None:
            raise TypeError(
                f"The budget '{budget.key}' of the gate '{name}' says neither default= nor "
                "rounded=: what may f16/f16 differ by from a reference that was rounded?"
            )
        budget = budget._replace(rounded=budget.default)
    if per_chunk is not None and budget.calibrated is None:
        budget = budget._replace(calibrated=of_chunks(name))

    def declare(decide: Decide) -> Decide:
        found = Declaration(
            name, title, test, group, path, order, (budget, *bounds), per_chunk, decide,
            short=short or name, rule=rule, unseen="not made",
        )  # fmt: skip
        setattr(decide, ATTRIBUTE, found)
        return decide

    return declare


def check(
    name: str,
    *,
    title: str,
    test: str,
    needs: Needs,
    group: str = "extensions",
    order: int = 100,
    unseen: Unseen = "not made",
    budget: Budget | None = None,
) -> Callable[[Inspect], Inspect]:
    """Declare a check; it returns ``None`` where it was switched off or does not apply.

    Args:
        unseen: what it says of a cell that lacks what it needs.
        budget: what it holds its figure against, if it has one.
    """

    def declare(decide: Inspect) -> Inspect:
        found = Declaration(
            name, title, test, group, needs, order, (budget,) if budget else (), None, decide,
            short=name, rule=None, unseen=unseen,
        )  # fmt: skip
        setattr(decide, ATTRIBUTE, found)
        return decide

    return declare
