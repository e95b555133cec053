"""Budgets per pair: packaged tables, overlaid by ``[budgets."K/V"]`` of the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.config.packaged import read_limits
from pytest_kvquant.data import DATA
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.cell import NoiseFloor

DEFAULTS = DATA / "budgets.toml"

Overrides = Mapping[str, Mapping[str, float]]
"""By pattern of pairs, then by key: ``[budgets]`` or ``[drift]`` of the configuration."""


def identical() -> Budgets:
    """``f16/f16`` against itself, batched alike: nothing may differ."""
    return {one.key: one.identical for one in registry.budgets()}


def rounded_reference() -> Budgets:
    """``f16/f16`` against its own logits after the rounding of a file."""
    return {
        one.key: one.identical if one.rounded is None else one.rounded for one in registry.budgets()
    }


def resolve_budgets(pair: Pair, *, embedded: bool, overrides: Overrides) -> Budgets:
    """Budgets of a pair, by key.

    The packaged table for the embedded model, or the one for any other model, is read from top to
    bottom and each pattern that matches overlays the ones before; then the configuration's.

    Raises:
        SettingsError: a malformed pattern.
    """
    if pair == REFERENCE:
        return identical()
    table = read_limits(DEFAULTS)["embedded" if embedded else "other"]
    return completed(_overlaid(pair, table) | _overlaid(pair, overrides))


def owned_budgets(pair: Pair, overrides: Overrides, *, every: bool) -> frozenset[str]:
    """Keys of the budgets of a pair that count: those that somebody has made their own.

    Args:
        every: all are: of the embedded model, and between builds.

    Raises:
        SettingsError: a malformed pattern.
    """
    declared = registry.budgets()
    if every:
        return frozenset(one.key for one in declared)
    return frozenset(_overlaid(pair, overrides)) | {one.key for one in declared if one.always}


LEAST_DRIFT = 1e-4
"""Mean KL, nats, that two builds may differ by where f16 shows no noise at all: a few times what
another order of the same sums has shown elsewhere."""

MOST_DRIFT = 2e-3
"""And the most, however noisy the reference build is: about what quantizing to q8_0 costs."""


def drift_budgets(pair: Pair, floors: Sequence[NoiseFloor], overrides: Overrides) -> Budgets:
    """Budgets of a pair against the same pair of another build.

    Two builds may round differently, and no more: mean KL up to twice what one build shows between
    two batch shapes, and not under ten noise floors, which is what can be measured; at least
    :data:`LEAST_DRIFT`, at most :data:`MOST_DRIFT`. What follows from it, each budget declares.

    Args:
        floors: what the reference build shows against itself.
        overrides: ``[drift."K/V"]`` of the configuration.

    Raises:
        SettingsError: a malformed pattern.
    """
    noise = [10 * floor.kl for floor in floors]
    noise += [2 * kl for floor in floors for kl in floor.shapes.values()]
    kl = min(MOST_DRIFT, max([LEAST_DRIFT, *noise]))
    values = {one.key: one.drift(kl) for one in registry.budgets() if one.drift is not None}
    return completed(values | _overlaid(pair, overrides))


def completed(values: Budgets) -> Budgets:
    """Budgets, with those that are missing by what their declarations say.

    Raises:
        SettingsError: a declaration says nothing.
    """
    found = dict(values)
    for one in registry.budgets():
        if one.key in found:
            continue
        if one.default is not None:
            found[one.key] = one.default
        elif one.follows is not None and one.follows[0] in found:
            key, factor = one.follows
            found[one.key] = factor * found[key]
        else:
            raise SettingsError(
                f"The budget '{one.key}' has no default, and no row of {DEFAULTS.name} gives it "
                "for this pair: add default= to its declaration, or the row."
            )
    return found


def _overlaid(pair: Pair, tables: Overrides) -> dict[str, float]:
    values: dict[str, float] = {}
    for pattern, table in tables.items():
        if pair.matches(pattern):
            values |= table
    return values
