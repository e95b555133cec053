"""Child side: a worker that is kept for one cell after another, and shows that it can be."""

from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path

import numpy as np

from pytest_kvquant.engine.child import scoring
from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.messages.cell import ProveSteady, SteadyProof
from pytest_kvquant.engine.messages.model import Done
from pytest_kvquant.engine.protocol import Channel, Message

_STATUS = Path("/proc/self/status")
_LIBC = ctypes.CDLL(None)


def memory_left(library: LoadedLibrary) -> dict[str, int]:
    """Bytes free on each GPU, and as ``host`` the negative of what this process has of its own.

    What can be told: systems without ``/proc`` say nothing of the host. What glibc keeps of freed
    memory for later use is given back first: a leak stays, and the pages that it holds back after
    one freed context and not after the next (up to 8 MiB each time, on healthy builds) do not.
    """
    left = {one["name"]: one["free"] for one in library.devices() if one["gpu"]}
    if _STATUS.exists():
        if (trim := getattr(_LIBC, "malloc_trim", None)) is not None:
            trim(0)
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
        self.channel.tell(Done())

    def on_pop(self, _message: Message) -> None:
        """Close the open context and take the one back that was put aside."""
        self._close()
        self.context = self.aside.pop()
        self.channel.tell(Done())

    def on_prove(self, message: Message) -> None:
        """Close the cell's context and decode the payload's tokens by ``f16/f16`` in a new one."""
        self._close()
        asked = message.read(ProveSteady)
        tokens = np.frombuffer(message.payload, np.int32)[None]
        with self.channel.spent("context"):
            context = Context(
                self.model,
                type_k="f16",
                type_v="f16",
                ctx=asked.ctx,
                sequences=1,
                batch=asked.batch,
                ubatch=asked.ubatch,
                threads=asked.threads,
            )
        digest = hashlib.sha256()
        for block in scoring.score_group(context, tokens, 0, asked.scored):
            digest.update(np.ascontiguousarray(block.logits).data)
        context.close()
        proof = SteadyProof(digest=digest.hexdigest(), memory=memory_left(self.library))
        self.channel.tell(proof)

    def _close(self) -> None:
        if self.context is not None:
            self.context.close()
            self.context = None
