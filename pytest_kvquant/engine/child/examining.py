"""Child side: the worker's messages that judge kernels on live graphs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pytest_kvquant.engine.child.ascent import Ascent, kl
from pytest_kvquant.engine.child.codec import Codecs
from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.finding import NodeFinding
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.child.nodes import Ggml, Node
from pytest_kvquant.engine.child.operations import Stage, Unsupported
from pytest_kvquant.engine.child.reproducer import save
from pytest_kvquant.engine.child.single_node import recompute
from pytest_kvquant.engine.child.watch import Watched
from pytest_kvquant.engine.protocol import Channel, Message

REPRODUCIBLE = ("FLASH_ATTN_EXT", "SET_ROWS", "ROPE", "MUL_MAT", "SOFT_MAX", "RMS_NORM")
"""Operations that a file can hold whole."""


class ExaminationMessages:
    """Mixed into the worker; a model must be loaded. An open context is closed."""

    channel: Channel
    library: LoadedLibrary
    model: LoadedModel
    context: Context | None
    _alive: Callable[[], None]
    _examined: tuple[Ggml, Codecs] | None = None

    def on_ascend(self, message: Message) -> None:
        """Sweep through a context with the oracle and a ladder of batch sizes.

        The payload is tokens. Fields: ``watch`` (see :meth:`_make`), ``cells``, ``ascends``
        (depths and the batch sizes there), ``store``, ``is_reference``.
        """
        fields, begun = message.fields, time.perf_counter()
        context = self._make(fields["watch"], fields["cells"])
        try:
            store = Path(fields["store"]) if fields["store"] else None
            tokens = np.frombuffer(message.payload, np.int32)
            climber = Ascent(
                context, tokens, store, is_reference=fields["is_reference"], alive=self._alive
            )
            rungs = [rung._asdict() for rung in climber.extend_to(fields["ascends"])]
            self.channel.send(
                "ascended",
                rungs=rungs,
                takes_back=climber.takes_back,
                seconds=time.perf_counter() - begun,
                **_seen(context),
            )
        finally:
            context.close()

    def on_scenario(self, message: Message) -> None:
        """Play a scenario of cache operations.

        Fields: ``watch``, ``cells``, ``steps``, ``name``, ``store``, ``is_reference``, ``equal``
        (pairs of labels whose logits should be the same).
        """
        fields, begun = message.fields, time.perf_counter()
        make = partial(self._make, fields["watch"])
        stage = Stage(
            make, fields["cells"], lambda number: self.channel.send("step", number=number)
        )
        refused = ""
        try:
            stage.play(fields["steps"])
        except Unsupported as error:
            refused = str(error)
        outputs = stage.outputs
        seen = _seen(stage.context)
        stage.close()
        self.channel.send(
            "scenario",
            unsupported=refused,
            reference={} if refused else _against(outputs, fields),
            own=[] if refused else [kl(outputs[a], outputs[b]) for a, b in fields["equal"]],
            seconds=time.perf_counter() - begun,
            **seen,
        )

    def on_reproduce(self, message: Message) -> None:
        """Compute the node of a file again. Fields: ``path``, ``device``."""
        fields = message.fields
        found = recompute(self.library, Path(fields["path"]), fields["device"])
        self.channel.send("reproduced", **found)

    def _at_step(self, number: int) -> None:
        self.channel.send("step", number=number)

    def _make(self, watch: dict[str, Any], cells: int) -> Watched:
        """A watched context.

        Args:
            watch: ``context`` (fields of :class:`Context`), ``layers``, ``facts``, ``seed``,
                ``folder`` for reproducers and ``build``, its words.
        """
        if self.context is not None:
            self.context.close()
            self.context = None
        if self._examined is None:
            self._examined = Ggml(self.library), Codecs(self.library)
        ggml, codecs = self._examined
        context = Watched(
            self.model,
            ggml,
            codecs,
            layers=watch["layers"],
            facts=Facts.of(watch["facts"]),
            seed=watch["seed"],
            flash=watch.get("flash", True),
            ctx=cells,
            **watch["context"],
        )
        if watch["folder"]:
            context.oracle.ledger.keep = partial(_keep, context, watch)
        return context


def _keep(context: Watched, watch: dict[str, Any], found: NodeFinding, node: Node) -> str | None:
    if node.op not in REPRODUCIBLE:
        return None
    pair = f"{watch['context']['type_k']}-{watch['context']['type_v']}"
    name = f"{pair}-{found.corner.operation}-layer{found.layer}-{found.corner.tokens}tokens.npz"
    path = Path(watch["folder"]) / name
    return save(node, context.oracle.values, found, path, watch["build"])


def _seen(context: Watched) -> dict[str, Any]:
    oracle = context.oracle
    return {
        "corners": oracle.ledger.as_data(),
        "failures": oracle.ledger.failures,
        "unknown": dict(oracle.unknown),
    }


def _against(outputs: dict[str, Any], fields: dict[str, Any]) -> dict[str, float]:
    """Mean KL of each label against f16's, which are left in the store where this is f16."""
    if not fields["store"]:
        return {}
    folder, found = Path(fields["store"]), {}
    folder.mkdir(parents=True, exist_ok=True)
    for label, rows in outputs.items():
        path = folder / f"{fields['name']}-{label}.npy"
        if fields["is_reference"]:
            np.save(path, rows)
        elif path.exists():
            found[label] = kl(np.load(path), rows)
    return found
