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
from pytest_kvquant.quality import batch_noise, second_look
from pytest_kvquant.quality.coverage_plan import Level
from pytest_kvquant.quality.findings import with_seen
from pytest_kvquant.quality.scenario_limits import f16_apart
from pytest_kvquant.quality.workplace import Workplace
from pytest_kvquant.results.kernels import Examination, RungRecord

WITHOUT_FLASH = (1, 4, 33)
"""Batch sizes in which f16 is computed without flash attention, too."""

NO_TAIL = "the ladder on logits past 256 tokens: this memory does not give up a tail"

DEATHS = ("crashed", "timeout")
"""Verdicts of a worker that are no question of how much memory there is, or of a machine or server
that gave up."""

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
            found = msgspec.structs.replace(found, without_flash=apart)
            if not second_look.may_be_a_jump(apart, f16_apart(found)):
                return found
            if batch_noise.on_cpu(found):
                once_more = _apart(self._ascend(REFERENCE, stops, flash=False))
                if not second_look.same(apart, once_more):
                    return msgspec.structs.replace(found, without_flash=max(apart, once_more))
            self._ascend(REFERENCE, stops, again=True)
            other = _apart(self._ascend(REFERENCE, stops, flash=False, again=True))
            return msgspec.structs.replace(found, without_flash=min(apart, other))
        except CellError as error:
            what = "f16 without flash attention"
            if error.verdict not in DEATHS:
                return self._given_up(found, what, error)
            self.bench.drop()
            return msgspec.structs.replace(found, flash_problem=f"{error.verdict}: {what}: {error}")

    def _look_again(
        self, pair: Pair, found: Examination, reference: Examination | None
    ) -> Examination:
        asked = second_look.doubtful(found, reference)
        if not asked:
            return found
        try:
            if batch_noise.on_cpu(found):  # there the same steps give the same bits
                seen = self._ascend(pair, self.level.ascends)
                rungs = second_look.repeated(found, reference, seen.rungs)
                found = msgspec.structs.replace(with_seen(found, seen), rungs=rungs)
                asked = second_look.doubtful(found, reference)
            if not asked:
                return found
            seen = self._ascend(pair, asked, again=True)
        except CellError as error:
            what = "a second look at batch sizes"
            if error.verdict not in DEATHS:
                return self._given_up(found, what, error)
            self.bench.drop()
            return msgspec.structs.replace(found, problem=f"{error.verdict}: {what}: {error}")
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
