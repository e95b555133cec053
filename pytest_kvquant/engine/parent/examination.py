"""Parent side: asks a worker to judge kernels on live graphs of a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.engine.protocol import Message
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.arrays import I32


class WatchPlan(NamedTuple):
    """What is watched, and how contexts are made."""

    layers: tuple[int, ...]
    facts: dict[str, Any]
    seed: int
    batch: int
    ubatch: int
    threads: int
    folder: Path | None = None
    """Where reproducers go."""
    build: str = ""
    """The build in words, for the reproducers."""

    def fields(self, pair: Pair, *, sequences: int, unified: bool) -> dict[str, Any]:
        """As the worker takes them."""
        return {
            "layers": list(self.layers),
            "facts": {**self.facts, "rotated": list(pair)},
            "seed": self.seed,
            "folder": str(self.folder) if self.folder else None,
            "build": self.build,
            "context": {
                "type_k": pair.k,
                "type_v": pair.v,
                "sequences": sequences,
                "unified": unified,
                "batch": self.batch,
                "ubatch": self.ubatch,
                "threads": self.threads,
            },
        }


def ascend(
    worker: Worker,
    pair: Pair,
    plan: WatchPlan,
    tokens: I32,
    *,
    ascends: Sequence[tuple[int, Sequence[int]]],
    store: Path,
    flash: bool = True,
) -> dict[str, Any]:
    """Sweep through a context: ``rungs``, ``corners``, ``failures``, ``unknown``, ``takes_back``.

    Args:
        tokens: as many as the context holds.
        ascends: depths, and the batch sizes there.
        store: where f16 leaves its logits, and other pairs find them.
        flash: whether attention is one operation; without, f16 is compared with itself.

    Raises:
        CellError: the worker dies or refuses.
    """
    return worker.exchange(
        "ascend",
        tokens.astype(np.int32).tobytes(),
        answer="ascended",
        watch={**plan.fields(pair, sequences=1, unified=False), "flash": flash},
        cells=len(tokens),
        ascends=[[depth, list(sizes)] for depth, sizes in ascends],
        store=str(store),
        is_reference=pair == REFERENCE and flash,
    )


def play_scenario(
    worker: Worker,
    pair: Pair,
    plan: WatchPlan,
    *,
    name: str,
    steps: Sequence[Any],
    equal: Sequence[tuple[str, str]],
    cells: int,
    sequences: int,
    unified: bool,
    store: Path,
    on_step: Callable[[int], None],
) -> dict[str, Any]:
    """Play a scenario: ``unsupported``, ``reference`` and ``own`` KL, and what the oracle saw.

    Args:
        on_step: told the number of each step before it is played.

    Raises:
        CellError: the worker dies or refuses.
    """

    def heard(message: Message) -> None:
        if message.name == "step":
            on_step(message.fields["number"])

    return worker.exchange(
        "scenario",
        answer="scenario",
        on_message=heard,
        watch=plan.fields(pair, sequences=sequences, unified=unified),
        cells=cells,
        steps=list(steps),
        name=name,
        equal=[list(one) for one in equal],
        store=str(store),
        is_reference=pair == REFERENCE,
    )
