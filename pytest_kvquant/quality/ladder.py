"""The ladder of a pair: the same tokens over one cache in every batch size, the oracle watching.

What is out of bounds is looked at again with other tokens, see
:mod:`pytest_kvquant.quality.second_look`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from pytest_kvquant.engine.messages.kernels import Ascended
from pytest_kvquant.engine.parent.examination import WatchPlan, ascend
from pytest_kvquant.engine.sequences import from_start
from pytest_kvquant.errors import CellError
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.arrays import I32
from pytest_kvquant.quality import second_look
from pytest_kvquant.quality.coverage_plan import Level
from pytest_kvquant.quality.findings import with_seen
from pytest_kvquant.quality.scenario_limits import f16_apart
from pytest_kvquant.quality.workplace import Workplace
from pytest_kvquant.results.kernels import Examination, RungRecord

WITHOUT_FLASH = (1, 4, 33)
"""Batch sizes in which f16 is computed without flash attention, too."""

NO_TAIL = "the ladder on logits past 256 tokens: this memory does not give up a tail"

Stops = Sequence[tuple[int, Sequence[int]]]
"""Depths, and the batch sizes at each."""


class Ladder(NamedTuple):
    """A context that is filled, and a worker that does it."""

    bench: Workplace
    plan: WatchPlan
    level: Level
    tokens: I32
    """A text, as long as the context."""
    store: Path
    """Where f16 leaves its logits for the others."""

    def sweep(self, pair: Pair, found: Examination, reference: Examination | None) -> Examination:
        """The findings with rungs and nodes of a pair; a death is a finding, too.

        Args:
            reference: of f16; ``None`` where that is the pair.
        """
        try:
            seen = self._ascend(pair, self.level.ascends)
        except CellError as error:
            self.bench.drop()
            return msgspec.structs.replace(found, problem=f"{error.verdict}: {error}")
        left = () if seen.takes_back else (NO_TAIL,)
        found = msgspec.structs.replace(
            with_seen(found, seen),
            rungs=tuple(RungRecord(**dataclasses.asdict(one)) for one in seen.rungs),
            left_out=(*found.left_out, *left),
        )
        if pair == REFERENCE and self.level.name != "minimal":
            found = self._sweep_without_flash(found)
        return self._look_again(pair, found, reference)

    def _sweep_without_flash(self, found: Examination) -> Examination:
        """f16 once more, its attention in single operations: they must say the same."""
        depth = self.level.ascends[min(1, len(self.level.ascends) - 1)][0]
        stops = [(depth, WITHOUT_FLASH)]
        try:
            seen = self._ascend(REFERENCE, stops, flash=False)
            found = with_seen(found, seen)
            if not seen.rungs:
                return found
            apart = _apart(seen)
            if second_look.may_be_a_jump(apart, f16_apart(found)):
                self._ascend(REFERENCE, stops, again=True)
                apart = min(apart, _apart(self._ascend(REFERENCE, stops, flash=False, again=True)))
        except CellError as error:
            return self._given_up(found, "f16 without flash attention", error)
        return msgspec.structs.replace(found, without_flash=apart)

    def _look_again(
        self, pair: Pair, found: Examination, reference: Examination | None
    ) -> Examination:
        asked = second_look.doubtful(found, reference)
        if not asked:
            return found
        try:
            seen = self._ascend(pair, asked, again=True)
        except CellError as error:
            return self._given_up(found, "a second look at batch sizes", error)
        rungs = second_look.looked_again(found.rungs, seen.rungs)
        return msgspec.structs.replace(with_seen(found, seen), rungs=rungs)

    def _given_up(self, found: Examination, what: str, error: CellError) -> Examination:
        self.bench.drop()
        left = f"{what}: {error.verdict}: {error}"
        return msgspec.structs.replace(found, left_out=(*found.left_out, left))

    def _ascend(
        self, pair: Pair, stops: Stops, *, flash: bool = True, again: bool = False
    ) -> Ascended:
        """``again``: with the text begun at its middle."""
        tokens = np.roll(self.tokens, -(len(self.tokens) // 2)) if again else self.tokens
        return ascend(
            self.bench.worker(), pair, self.plan, from_start(tokens, self.bench.bos),
            ascends=stops, store=self.store / "again" if again else self.store, flash=flash,
        )  # fmt: skip


def _apart(seen: Ascended) -> float:
    return max(one.reference or 0.0 for one in seen.rungs)
