"""Plays a scenario on a pair; what may be a jump of single tokens is looked at again.

As in :mod:`pytest_kvquant.quality.second_look`: a model that chooses experts jumps with the last
bit of a sum, and keys that are turned are rounded once more. On gpt-oss-64 of the zoo q8_0 was
0.029 nats from f16 after a context shift, and well within bounds with other tokens.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.messages.cell import Step
from pytest_kvquant.engine.messages.kernels import ScenarioPlayed
from pytest_kvquant.engine.parent.examination import WatchPlan, play_scenario
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.arrays import I32
from pytest_kvquant.quality.scenario_verdict import ScenarioLimits
from pytest_kvquant.quality.scenarios.registry import Scenario
from pytest_kvquant.quality.scenarios.tape import Tape, spans_of
from pytest_kvquant.quality.second_look import MOST, same
from pytest_kvquant.quality.workplace import Workplace
from pytest_kvquant.results.kernels import PLACEMENT


class ScenarioStage(NamedTuple):
    """A scenario, a pair, and a worker that plays it."""

    bench: Workplace
    pair: Pair
    plan: WatchPlan
    scenario: Scenario
    tokens: I32
    window: int
    store: Path
    """Where f16 leaves its logits for the others."""
    last: list[int]
    """Number of the last step that was begun; -1: none was."""

    def play(self) -> ScenarioPlayed:
        """Once.

        Raises:
            CellError: the worker dies or refuses.
        """
        return self._play(self.pair, again=False)

    def look_again(self, seen: ScenarioPlayed, *, same_bits: bool) -> ScenarioPlayed:
        """What was seen, with the smaller of its figures and those of other tokens.

        Args:
            same_bits: whether the same steps give the same bits, as on a CPU: then they come first
                once more, and figures that are not the same are no jump; the larger ones stay.

        Raises:
            CellError: the worker dies or refuses.
        """
        if same_bits:
            repeat = self._play(self.pair, again=False)
            pairs = zip(_figures(seen), _figures(repeat), strict=True)
            if not all(same(one, other) for one, other in pairs):
                return _merged(seen, repeat, largest=True)
        if self.pair != REFERENCE:
            self._play(REFERENCE, again=True)
        return _merged(seen, self._play(self.pair, again=True), largest=False)

    def left(self) -> str:
        """Why it is not played on this model; empty: it is."""
        return self._tape(again=False).left

    def steps(self) -> list[Step]:
        """As they are played first."""
        return self._tape(again=False).steps

    def sizes(self) -> set[int]:
        """Tokens of the batches whose logits are compared."""
        return {
            sum(len(words) for _, _, words, _ in spans_of(step))
            for step in self.steps()
            if step[0] == "decode" and step[2]
        }

    def _tape(self, *, again: bool) -> Tape:
        tokens = np.roll(self.tokens, -(len(self.tokens) // 2)) if again else self.tokens
        cells = self.scenario.size(self.window)
        tape = Tape(tokens, cells=cells, window=self.window, bos=self.bench.bos)
        self.scenario.record(tape)
        return tape

    def _play(self, pair: Pair, *, again: bool) -> ScenarioPlayed:
        worker, scenario = self.bench.worker(), self.scenario
        tape = self._tape(again=again)
        self.last[0] = -1
        return play_scenario(
            worker, pair, self.plan, name=scenario.name, steps=tape.steps, equal=tape.equal,
            cells=tape.cells, sequences=scenario.sequences, unified=scenario.unified,
            store=self.store / "again" if again else self.store,
            on_step=lambda number: self.last.__setitem__(0, number),
        )  # fmt: skip


def may_be_jumps(seen: ScenarioPlayed, limits: ScenarioLimits) -> bool:
    """Whether figures are all that is out of bounds, and small enough for jumps of tokens."""
    own, reference = max(seen.own, default=0.0), max(seen.reference.values(), default=0.0)
    wrong = any(one.failed for one in seen.corners if one.operation != PLACEMENT)
    out = own > limits.own or reference > limits.reference
    return out and not wrong and max(own, reference) < MOST


def _figures(seen: ScenarioPlayed) -> list[float]:
    return [*seen.own, *(seen.reference[label] for label in sorted(seen.reference))]


def _merged(seen: ScenarioPlayed, other: ScenarioPlayed, *, largest: bool) -> ScenarioPlayed:
    chosen = max if largest else min
    return dataclasses.replace(
        seen,
        failed=seen.failed or other.failed,
        reference={
            label: chosen(figure, other.reference.get(label, figure))
            for label, figure in seen.reference.items()
        },
        own=[chosen(pair) for pair in zip(seen.own, other.own or seen.own, strict=True)],
        corners=[*seen.corners, *other.corners],
        failures=[*seen.failures, *other.failures],
    )
