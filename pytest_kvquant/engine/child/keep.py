"""Child side: a worker that is kept for one cell after another, and shows that it can be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from pytest_kvquant.engine.child import scoring
from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.protocol import Channel, Message

_STATUS = Path("/proc/self/status")


def memory_left(library: LoadedLibrary) -> dict[str, int]:
    """Bytes free on each GPU, and as ``host`` the negative of what this process has of its own.

    What can be told: systems without ``/proc`` say nothing of the host.
    """
    left = {one["name"]: one["free"] for one in library.devices() if one["gpu"]}
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("RssAnon:"):
                left["host"] = -1024 * int(line.split()[1])
    return left


class KeepMessages:
    """The part of the worker that answers ``push``, ``pop`` and ``prove``."""

    channel: Channel
    library: LoadedLibrary
    model: LoadedModel
    context: Context | None
    aside: list[Context | None]
    """Contexts that wait for work in another one to end."""

    def on_push(self, _message: Message) -> None:
        """Put the open context aside, so that another one can be opened."""
        self.aside.append(self.context)
        self.context = None
        self.channel.send("push")

    def on_pop(self, _message: Message) -> None:
        """Close the open context and take the one back that was put aside."""
        self._close()
        self.context = self.aside.pop()
        self.channel.send("pop")

    def on_prove(self, message: Message) -> None:
        """Close the cell's context and decode the payload's tokens by ``f16/f16`` in a new one.

        Fields: ``scored`` and those of :class:`Context`. Says a hash of the scored logits, and
        what memory is left once that context is closed too.
        """
        self._close()
        fields = dict(message.fields)
        scored = fields.pop("scored")
        tokens = np.frombuffer(message.payload, np.int32)[None]
        with self.channel.spent("context"):
            context = Context(self.model, type_k="f16", type_v="f16", sequences=1, **fields)
        digest = hashlib.sha256()
        for block in scoring.score_group(context, tokens, 0, scored):
            digest.update(np.ascontiguousarray(block.logits).data)
        context.close()
        self.channel.send("prove", digest=digest.hexdigest(), memory=memory_left(self.library))

    def _close(self) -> None:
        if self.context is not None:
            self.context.close()
            self.context = None
