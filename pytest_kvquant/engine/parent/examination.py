"""Parent side: asks a worker to judge kernels on live graphs of a pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.messages.cell import Step
from pytest_kvquant.engine.messages.kernels import (
    Ascend,
    Ascended,
    PlayScenario,
    Reproduce,
    Reproduced,
    ScenarioPlayed,
    StepBegun,
    WatchOrder,
    WatchShape,
)
from pytest_kvquant.engine.parent.process import read_answer
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.engine.protocol import Message
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.arrays import I32


class WatchPlan(NamedTuple):
    """What is watched, and how contexts are made."""

    layers: tuple[int, ...]
    facts: Mapping[str, object]
    seed: int
    batch: int
    ubatch: int
    threads: int
    folder: Path | None = None
    """Where reproducers go."""
    build: str = ""
    """The build in words, for the reproducers."""

    def watch(self, pair: Pair, *, sequences: int, unified: bool, flash: bool = True) -> WatchOrder:
        """As the worker takes it."""
        return WatchOrder(
            layers=list(self.layers),
            facts={**self.facts, "rotated": list(pair)},
            seed=self.seed,
            flash=flash,
            folder=str(self.folder) if self.folder else None,
            build=self.build,
            context=WatchShape(
                type_k=pair.k,
                type_v=pair.v,
                sequences=sequences,
                unified=unified,
                batch=self.batch,
                ubatch=self.ubatch,
                threads=self.threads,
            ),
        )


def ascend(
    worker: Worker,
    pair: Pair,
    plan: WatchPlan,
    tokens: I32,
    *,
    ascends: Sequence[tuple[int, Sequence[int]]],
    store: Path,
    flash: bool = True,
) -> Ascended:
    """Sweep through a context.

    Args:
        tokens: as many as the context holds.
        ascends: depths, and the batch sizes there.
        store: where f16 leaves its logits, and other pairs find them.
        flash: whether attention is one operation; without, f16 is compared with itself.

    Raises:
        CellError: the worker dies or refuses.
    """
    asked = Ascend(
        watch=plan.watch(pair, sequences=1, unified=False, flash=flash),
        cells=len(tokens),
        ascends=[(depth, list(sizes)) for depth, sizes in ascends],
        store=str(store),
        is_reference=pair == REFERENCE and flash,
    )
    return worker.exchange(asked, Ascended, tokens.astype(np.int32).tobytes())


def play_scenario(
    worker: Worker,
    pair: Pair,
    plan: WatchPlan,
    *,
    name: str,
    steps: Sequence[Step],
    equal: Sequence[tuple[str, str]],
    cells: int,
    sequences: int,
    unified: bool,
    store: Path,
    on_step: Callable[[int], None],
) -> ScenarioPlayed:
    """Play a scenario.

    Args:
        on_step: told the number of each step before it is played.

    Raises:
        CellError: the worker dies or refuses.
    """

    def heard(message: Message) -> None:
        if message.name == StepBegun.NAME:
            on_step(read_answer(message, StepBegun).number)

    asked = PlayScenario(
        watch=plan.watch(pair, sequences=sequences, unified=unified),
        cells=cells,
        steps=list(steps),
        name=name,
        equal=list(equal),
        store=str(store),
        is_reference=pair == REFERENCE,
    )
    return worker.exchange(asked, ScenarioPlayed, on_message=heard)


def reproduce(worker: Worker, path: str, device: str | None) -> Reproduced:
    """Compute the node of a file again.

    Args:
        device: as the user names it; ``None``: the CPU.

    Raises:
        CellError: the worker dies or refuses.
    """
    return worker.exchange(Reproduce(path=path, device=worker.visible.asked(device)), Reproduced)
