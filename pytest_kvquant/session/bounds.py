"""The budgets of each cell of a run, and which of them its owner set."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.checks.budgets import (
    drift_budgets,
    owned_budgets,
    resolve_budgets,
    rounded_reference,
)
from pytest_kvquant.checks.judging import owned_gates
from pytest_kvquant.config.complaints import nearest
from pytest_kvquant.config.expectations import declared_failures
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.session.compared import Compared
from pytest_kvquant.session.prepared import Prepared


class Bounds:
    """What the figures of a cell may be."""

    def __init__(self, ready: Prepared, compared: Compared) -> None:
        self._ready, self._compared = ready, compared

    def budgets(self, pair: Pair) -> Budgets:
        """Budgets of a cell; against the same pair of another build, those of a drift.

        Raises:
            CellError: they follow from the noise floor, and it cannot be measured.
        """
        ready, compared = self._ready, self._compared
        if ready.other_build is not None and compared.references.pair(pair) == pair:
            # Rounding alone moves a quantized value by a whole step: f16's own noise counts too.
            floors = [compared.control(one).floor for one in (pair, REFERENCE)]
            return drift_budgets(pair, floors, ready.settings.drift)
        if ready.logits is not None and pair == REFERENCE:
            return rounded_reference()
        return resolve_budgets(pair, embedded=ready.embedded, overrides=ready.settings.budgets)

    def owned(self, pair: Pair) -> frozenset[str]:
        """Absolute gates that count: all of ours, those between builds, and the owner's own."""
        settings = self._ready.settings
        every = self._ready.embedded or settings.compare_cells
        return owned_gates(owned_budgets(pair, settings.budgets, every=every))

    def packaged(self, pair: Pair, gate: str) -> bool:
        """Whether a gate is held against what the package says of its own model."""
        settings = self._ready.settings
        chosen = owned_gates(owned_budgets(pair, settings.budgets, every=False))
        return self._ready.embedded and self._ready.other_build is None and gate not in chosen

    def declared(self, pair: Pair) -> frozenset[str]:
        """What ``[expect]`` says that fails of a cell, on the device of this run."""
        ready = self._ready
        return declared_failures(pair, ready.library.device, ready.expect)


def of_no_use(settings: Settings, matrix: list[Pair]) -> list[str]:
    """Budgets that were set and concern no cell of a run, a sentence each."""
    names = list(map(str, matrix))
    found = [
        f"budgets for '{pattern}' match no cell of this run{nearest(pattern, names)}"
        for pattern in unused_patterns(matrix, settings.budgets)
    ]
    found += [
        f"[expect] '{pattern}' matches no cell of this run{nearest(pattern, names)}"
        for pattern in unused_patterns(matrix, settings.expect)
    ]
    if str(REFERENCE) in settings.budgets:
        found.append("budgets for 'f16/f16' are not used: batched alike, nothing may differ")
    found += [
        f"drift budgets for '{pattern}' match no cell of this run{nearest(pattern, names)}"
        for pattern in unused_patterns(matrix, settings.drift)
    ]
    return found


def unused_patterns(pairs: list[Pair], patterns: Iterable[str]) -> list[str]:
    """Patterns of the configuration that match no cell; a typing error as a rule."""
    return [pattern for pattern in patterns if not any(pair.matches(pattern) for pair in pairs)]
