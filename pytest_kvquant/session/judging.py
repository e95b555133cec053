"""Which gates count for a cell: those of the kernel, and those that the owner has budgets for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.checks.healthy import (
    NOT_JUDGED,
    judge_decode,
    judge_kernel,
    without_emulation,
)
from pytest_kvquant.checks.judging import judge
from pytest_kvquant.checks.kernel_names import KERNEL_GATES
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.quality.healthy import HealthyCell
from pytest_kvquant.results.gate import Gate

TYPICAL = 2.5
"""Healthy KLs that stand for a budget where the owner has none: as the embedded model's do."""


SWITCHED_OFF = "--kv-healthy is off, and [budgets] has none for this figure"


class JudgedGates(NamedTuple):
    """The gates of a cell."""

    counted: tuple[Gate, ...]
    """Those that its verdict follows from."""
    advised: tuple[Gate, ...]
    """Those against published budgets that nobody has made their own: told, not judged."""

    @property
    def decidable(self) -> JudgedGates:
        """Without those that had nothing to be held against, which no further chunk decides."""
        held = (one for one in self.counted if not one.rule.startswith(NOT_JUDGED))
        return self._replace(counted=tuple(held))


class Judge(NamedTuple):
    """How a cell's evidence is judged.

    ``owned`` are the absolute gates that count; ``identity`` says that the cell is the reference
    itself, whose kernel is judged by them.
    """

    budgets: Budgets
    owned: frozenset[str]
    rules: Rules
    noise: float
    """KL that f16 shows against itself, nats."""
    identity: bool
    emulated: bool = True
    """Whether healthy cells are emulated; else what has no budget of the owner stays open."""

    @property
    def kl_budget(self) -> float:
        """The owner's budget for mean KL, nats; 0 where there is none to be measurable."""
        return self.budgets["kl_mean"] if "kl_mean" in self.owned or self.identity else 0.0

    def typical_kl(self, healthy: HealthyCell | None) -> float:
        """Mean KL, nats, of which the cell's batch shapes may differ by a share."""
        if healthy is None or not healthy.evidence.complete:
            return self.budgets["kl_mean"]
        seen = float(healthy.evidence.per_chunk().kl.mean())
        return max(self.kl_budget, TYPICAL * seen)

    def prefill(self, evidence: Evidence, healthy: HealthyCell | None) -> JudgedGates:
        """The gates of the prefill path on the evidence so far."""
        absolute = judge(evidence, self.budgets, self.rules)
        return self._both(absolute, self._kernel(evidence, healthy))

    def decode(
        self, evidence: Evidence, healthy: HealthyCell | None, looks: tuple[int, ...]
    ) -> JudgedGates:
        """The gates of the decode path.

        Args:
            looks: chunks after which it is judged, ascending; those of the evidence are one.
        """
        rules = Rules(cap=evidence.complete, looks=looks)
        seen = evidence.per_chunk().kl
        kernel: Sequence[Gate] = ()
        if healthy is not None and healthy.decode is not None and healthy.decode.complete:
            kernel = [judge_decode(evidence, healthy.decode, self.noise, looks)]
        elif healthy is not None:
            kernel = [without_emulation("decode_kl_ratio", seen, rules, healthy.problem)]
        elif not self.emulated and "decode_kl_mean" not in self.owned:
            kernel = [without_emulation("decode_kl_ratio", seen, rules, SWITCHED_OFF)]
        return self._both(judge(evidence, self.budgets, rules, "decode"), kernel)

    def _kernel(self, evidence: Evidence, healthy: HealthyCell | None) -> Sequence[Gate]:
        if healthy is None and self.emulated:
            return ()
        if healthy is None:
            seen = evidence.per_chunk().kl
            return [
                without_emulation(ratio, seen, self.rules, SWITCHED_OFF)
                for name, ratio in KERNEL_GATES.items()
                if name not in self.owned and ratio != "decode_kl_ratio"
            ]
        if healthy.problem is not None:
            seen = evidence.per_chunk().kl
            names = [name for name in KERNEL_GATES.values() if name != "decode_kl_ratio"]
            return [without_emulation(one, seen, self.rules, healthy.problem) for one in names]
        return judge_kernel(evidence, healthy.evidence, self.rules, self.noise, healthy.draws)

    def _both(self, absolute: Sequence[Gate], kernel: Sequence[Gate]) -> JudgedGates:
        if self.identity:
            return JudgedGates(tuple(replace(gate, question="kernel") for gate in absolute), ())
        counted = tuple(gate for gate in absolute if gate.name in self.owned)
        advised = tuple(gate for gate in absolute if gate.name not in self.owned)
        return JudgedGates((*counted, *kernel), advised)
