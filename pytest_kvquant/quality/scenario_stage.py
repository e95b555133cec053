"""Plays a scenario on a pair; what may be a jump of single tokens is looked at again.

As in :mod:`pytest_kvquant.quality.second_look`: a model that chooses experts jumps with the last
bit of a sum, and keys that are turned are rounded once more. On gpt-oss-64 of the zoo q8_0 was
0.029 nats from f16 after a context shift, and well within bounds with other tokens.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

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


class ScenarioStage:
    """A scenario, a pair, and a worker that plays it.

    Args:
        bench: has had a worker: what sequences begin with is known.
        window: tokens that the model's window layers look back on; 0: none has a window.
        store: where f16 leaves its logits for the others.
    """

    def __init__(
        self,
        bench: Workplace,
        pair: Pair,
        plan: WatchPlan,
        scenario: Scenario,
        tokens: I32,
        *,
        window: int,
        store: Path,
    ) -> None:
        self._bench, self._pair, self._plan, self._scenario = bench, pair, plan, scenario
        self._tokens, self._window, self._store = tokens, window, store
        self.tape = self._recorded(tokens)
        """As it is played first."""
        self.last = -1
        """Number of the last step that was begun; -1: none was."""

    def play(self) -> ScenarioPlayed:
        """Once.

        Raises:
            CellError: the worker dies or refuses.
        """
        return self._play(self._pair, again=False)

    def look_again(self, seen: ScenarioPlayed, *, same_bits: bool) -> ScenarioPlayed:
        """What was seen, with the smaller of its figures and those of other tokens.

        Args:
            same_bits: whether the same steps give the same bits, as on a CPU: then they come first
                once more, and figures that are not the same are no jump; the larger ones stay.

        Raises:
            CellError: the worker dies or refuses.
        """
        if same_bits:
            repeat = self._play(self._pair, again=False)
            pairs = zip(_figures(seen), _figures(repeat), strict=True)
            if not all(same(one, other) for one, other in pairs):
                return _merged(seen, repeat, largest=True)
        if self._pair != REFERENCE:
            self._play(REFERENCE, again=True)
        return _merged(seen, self._play(self._pair, again=True), largest=False)

    def sizes(self) -> set[int]:
        """Tokens of the batches whose logits are compared."""
        return {
            sum(len(words) for _, _, words, _ in spans_of(step))
            for step in self.tape.steps
            if step[0] == "decode" and step[2]
        }

    def _recorded(self, tokens: I32) -> Tape:
        cells = self._scenario.size(self._window)
        tape = Tape(tokens, cells=cells, window=self._window, bos=self._bench.bos)
        self._scenario.record(tape)
        return tape

    def _play(self, pair: Pair, *, again: bool) -> ScenarioPlayed:
        worker, scenario = self._bench.worker(), self._scenario
        tape, store = self.tape, self._store
        if again:
            tape = self._recorded(np.roll(self._tokens, -(len(self._tokens) // 2)))
            store = self._store / "again"
        self.last = -1
        return play_scenario(
            worker, pair, self._plan, name=scenario.name, steps=tape.steps, equal=tape.equal,
            cells=tape.cells, sequences=scenario.sequences, unified=scenario.unified,
            store=store, on_step=self._begun,
        )  # fmt: skip

    def _begun(self, number: int) -> None:
        self.last = number


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
