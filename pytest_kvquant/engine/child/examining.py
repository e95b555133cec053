"""Child side: the worker's messages that judge kernels on live graphs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from pytest_kvquant.engine.child import judge_plain
from pytest_kvquant.engine.child.ascent import Ascent, kl
from pytest_kvquant.engine.child.codec import Codecs
from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.finding import NodeFinding
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.child.nodes import Ggml, Node
from pytest_kvquant.engine.child.operations import Stage, StepFailed, Unsupported
from pytest_kvquant.engine.child.reproducer import save
from pytest_kvquant.engine.child.single_node import recompute
from pytest_kvquant.engine.child.watch import Watched
from pytest_kvquant.engine.messages.kernels import (
    Ascend,
    Ascended,
    PlayScenario,
    Reproduce,
    ScenarioPlayed,
    StepBegun,
    WatchOrder,
)
from pytest_kvquant.engine.protocol import Channel, Message
from pytest_kvquant.numerics.arrays import F32

REPRODUCIBLE = judge_plain.UNDERSTOOD | {"FLASH_ATTN_EXT", "SET_ROWS", "ROPE", "TURBO_WHT"}
"""Operations that a file can hold whole."""

AROUND = ("mask", "parameters")
"""Findings about what an operation was told: it computes right what it was told, alone as well."""


class ExaminationMessages:
    """Mixed into the worker; a model must be loaded. An open context is closed."""

    channel: Channel
    library: LoadedLibrary
    codecs: Codecs
    model: LoadedModel
    context: Context | None
    _alive: Callable[[], None]
    _ggml: Ggml | None = None

    def on_ascend(self, message: Message) -> None:
        """Sweep through a context with the oracle and a ladder of batch sizes.

        The payload is tokens.
        """
        asked, begun = message.read(Ascend), time.perf_counter()
        context = self._make(asked.watch, asked.cells)
        try:
            store = Path(asked.store) if asked.store else None
            tokens = np.frombuffer(message.payload, np.int32)
            climber = Ascent(
                context,
                tokens,
                store,
                is_reference=asked.is_reference,
                keeps_all=self.model.keeps_all,
                alive=self._alive,
            )
            rungs = list(climber.extend_to(asked.ascends))
            ledger = context.oracle.ledger
            self.channel.tell(
                Ascended(
                    rungs=rungs,
                    takes_back=climber.takes_back,
                    seconds=time.perf_counter() - begun,
                    corners=ledger.corners(),
                    failures=ledger.failures,
                    unknown=dict(context.oracle.unknown),
                )
            )
        finally:
            context.close()

    def on_scenario(self, message: Message) -> None:
        """Play a scenario of cache operations."""
        asked, begun = message.read(PlayScenario), time.perf_counter()
        make = partial(self._make, asked.watch)
        stage = Stage(make, asked.cells, lambda number: self.channel.tell(StepBegun(number=number)))
        refused, failed = "", ""
        try:
            stage.play(asked.steps)
        except Unsupported as error:
            refused = str(error)
        except StepFailed as error:
            failed = str(error)
        done, outputs = not (refused or failed), stage.outputs
        oracle = stage.context.oracle
        corners, unknown = oracle.ledger.corners(), dict(oracle.unknown)
        stage.close()
        self.channel.tell(
            ScenarioPlayed(
                unsupported=refused,
                failed=failed,
                reference=_against(outputs, asked) if done else {},
                own=[kl(outputs[a], outputs[b]) for a, b in asked.equal] if done else [],
                seconds=time.perf_counter() - begun,
                corners=corners,
                failures=oracle.ledger.failures,
                unknown=unknown,
            )
        )

    def on_reproduce(self, message: Message) -> None:
        """Compute the node of a file again."""
        asked = message.read(Reproduce)
        self.channel.tell(recompute(self.library, Path(asked.path), asked.device))

    def _make(self, watch: WatchOrder, cells: int) -> Watched:
        """A watched context."""
        if self.context is not None:
            self.context.close()
            self.context = None
        if self._ggml is None:
            self._ggml = Ggml(self.library)
        context = Watched(
            self.model,
            self._ggml,
            self.codecs,
            layers=watch.layers,
            facts=Facts.of(watch.facts),
            seed=watch.seed,
            flash=watch.flash,
            ctx=cells,
            **dataclasses.asdict(watch.context),
        )
        if watch.folder:
            context.oracle.ledger.keep = partial(_keep, context, watch)
        return context


def _keep(context: Watched, watch: WatchOrder, found: NodeFinding, node: Node) -> str | None:
    if node.op not in REPRODUCIBLE or found.corner.operation in AROUND or watch.folder is None:
        return None
    types = watch.context.type_k, watch.context.type_v
    met = f"{found.corner.operation}-layer{found.layer}-{found.corner.tokens}tokens"
    path = Path(watch.folder) / f"{'-'.join(types)}-{met}.npz"
    return save(node, context.oracle.values, found, path, watch.build, types)


def _against(outputs: Mapping[str, F32], asked: PlayScenario) -> dict[str, float]:
    """Mean KL of each label against f16's, which are left in the store where this is f16."""
    if not asked.store:
        return {}
    folder, found = Path(asked.store), {}
    folder.mkdir(parents=True, exist_ok=True)
    for label, rows in outputs.items():
        path = folder / f"{asked.name}-{label}.npy"
        if asked.is_reference:
            np.save(path, rows)
        elif path.exists():
            found[label] = kl(np.load(path), rows)
    return found
