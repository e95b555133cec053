"""Budgets per pair: the packaged defaults, overlaid by ``[budgets."K/V"]`` of the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from pytest_kvquant.config.overrides import BudgetOverride
from pytest_kvquant.config.packaged import read_limits
from pytest_kvquant.data import DATA
from pytest_kvquant.matrix import REFERENCE, Pair

if TYPE_CHECKING:
    from pytest_kvquant.results.cell import NoiseFloor

DEFAULTS = DATA / "budgets.toml"


class BatchedBudgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The most that the figures of the prefill path may be."""

    kl_mean: float
    """Mean KL, nats per token."""
    kl_tail: float
    """Share of tokens whose KL may exceed ``kl_tail_over``."""
    kl_tail_over: float
    """Nats above which a token counts for the tail."""
    ln_ppl: float
    """|ln PPL ratio|, in either direction."""
    top1_flips: float
    """Share of decisive flips of the argmax."""
    more: dict[str, float] = {}
    """Of gates that bring their own, by key."""


class Budgets(BatchedBudgets, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The most that the figures of one pair may be."""

    decode_kl_mean: float
    """Mean KL by the decode path, nats; where no table says, twice ``kl_mean``: fewer tokens."""
    trajectory: float
    """Least share of a greedy continuation that agrees with f16's."""
    recall: float = 0.8
    """Least share of what f16 gains from having read a passage before, at every distance."""
    robustness: float = 3.0
    """Most mean KL on disturbed text over that on the same text as it is."""

    @property
    def batched(self) -> BatchedBudgets:
        """Those of the prefill path alone."""
        names = BatchedBudgets.__struct_fields__
        return BatchedBudgets(**{name: getattr(self, name) for name in names})


IDENTICAL = Budgets(
    kl_mean=0.0,
    kl_tail=0.0,
    kl_tail_over=0.0,
    ln_ppl=0.0,
    top1_flips=0.0,
    decode_kl_mean=0.0,
    trajectory=1.0,
    recall=1.0,
    robustness=1.0,
)
"""``f16/f16`` against itself, batched alike: nothing may differ."""


def resolve_budgets(
    pair: Pair,
    *,
    embedded: bool,
    overrides: Mapping[str, BudgetOverride],
    defaults: Mapping[str, float] = {},
) -> Budgets:
    """Budgets of a pair.

    The packaged table for the embedded model, or the one for any other model, is read from top to
    bottom and each pattern that matches overlays the ones before; then the configuration's.

    Args:
        defaults: budgets that no packaged table has, by key; see ``checks/``.

    Raises:
        SettingsError: a malformed pattern.
    """
    if pair == REFERENCE:
        more = dict.fromkeys(defaults, 0.0)
        return msgspec.structs.replace(IDENTICAL, more=more) if more else IDENTICAL
    table = read_limits(DEFAULTS)
    values: dict[str, float] = {}
    for pattern, entry in table["embedded" if embedded else "other"].items():
        if pair.matches(pattern):
            values |= entry
    values |= _overlay(pair, overrides)
    values.setdefault("decode_kl_mean", 2 * values["kl_mean"])
    return _with_more(values, pair, overrides, defaults)


def owned_budgets(
    pair: Pair, overrides: Mapping[str, BudgetOverride], *, every: bool
) -> frozenset[str]:
    """Names of the budgets of a pair that somebody has made their own.

    Args:
        every: all are: of the embedded model, and between builds.

    Raises:
        SettingsError: a malformed pattern.
    """
    if every:
        return frozenset(Budgets.__struct_fields__)
    return frozenset(_overlay(pair, overrides))


LEAST_DRIFT = 1e-4
"""Mean KL, nats, that two builds may differ by where f16 shows no noise at all: a few times what
another order of the same sums has shown elsewhere."""

MOST_DRIFT = 2e-3
"""And the most, however noisy the reference build is: about what quantizing to q8_0 costs."""


def drift_budgets(
    pair: Pair,
    floors: Sequence[NoiseFloor],
    overrides: Mapping[str, BudgetOverride],
    defaults: Mapping[str, float] = {},
) -> Budgets:
    """Budgets of a pair against the same pair of another build.

    Two builds may round differently, and no more: mean KL up to twice what one build shows between
    two batch shapes, and not under ten noise floors, which is what can be measured; at least
    :data:`LEAST_DRIFT`, at most :data:`MOST_DRIFT`. From it follow:
    twice that for the few tokens of the decode path; for the ln PPL ratio a tenth of √(2·KL), the
    RMS change of a log-likelihood at that KL; for the tail at most 2 % of tokens over 20 times the
    mean, which a fault in few tokens exceeds before the mean moves.

    Args:
        floors: what the reference build shows against itself.
        overrides: ``[drift."K/V"]`` of the configuration.

    Raises:
        SettingsError: a malformed pattern.
    """
    noise = [10 * floor.kl for floor in floors]
    noise += [2 * kl for floor in floors for kl in floor.shapes.values()]
    kl = min(MOST_DRIFT, max(LEAST_DRIFT, *noise))
    values = {
        "kl_mean": kl,
        "kl_tail": 0.02,
        "kl_tail_over": 20 * kl,
        "ln_ppl": 0.1 * math.sqrt(2 * kl),
        "top1_flips": 0.01,
        "trajectory": 0.25,
    }
    values |= _overlay(pair, overrides)
    values.setdefault("decode_kl_mean", 2 * values["kl_mean"])
    return _with_more(values, pair, overrides, defaults)


def _with_more(
    values: Mapping[str, float],
    pair: Pair,
    overrides: Mapping[str, BudgetOverride],
    defaults: Mapping[str, float],
) -> Budgets:
    more = dict(defaults)
    for pattern, override in overrides.items():
        if pair.matches(pattern):
            more |= override.more
    return msgspec.convert({**values, "more": more}, Budgets)


def _overlay(pair: Pair, overrides: Mapping[str, BudgetOverride]) -> dict[str, float]:
    values: dict[str, float] = {}
    for pattern, override in overrides.items():
        if pair.matches(pattern):
            given = msgspec.to_builtins(override)
            given.pop("more")
            values |= {name: value for name, value in given.items() if value is not None}
    return values


def unused_patterns(pairs: list[Pair], patterns: Iterable[str]) -> list[str]:
    """Patterns of the configuration that match no cell; a typing error as a rule."""
    return [pattern for pattern in patterns if not any(pair.matches(pattern) for pair in pairs)]
