"""Parent side: a worker that is kept for one cell after another, and what it has to prove."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.messages.cell import ProveSteady, PutAside, SteadyProof, TakeBack
from pytest_kvquant.engine.messages.model import Done
from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.engine.parent.worker import Worker

MEMORY_KEPT = 256 << 20
"""Bytes that may be missing, of a device or of the process, after a context is closed: kernels and
their workspaces are loaded when they are first used, and stay."""


class Proof(NamedTuple):
    """What a kept worker shows between two cells."""

    digest: str
    """Hash of f16's logits of the first chunk."""
    memory: Mapping[str, int]
    """Bytes free on each GPU; as ``host`` the negative of what its process has of its own."""

    def other_logits(self, first: Proof) -> str:
        """That f16 is not what it was at the start, in words; nothing where it is."""
        same = self.digest == first.digest
        return "" if same else "f16 no longer gives the same logits in its process"

    def objection(self, first: Proof) -> str:
        """Why it is not as it was at the start, in words; nothing where it is."""
        if found := self.other_logits(first):
            return found
        for name, free in self.memory.items():
            if (kept := first.memory.get(name, free) - free) > MEMORY_KEPT:
                where = "of its process" if name == "host" else f"on {name}"
                return f"{kept >> 20:,} MiB of memory {where} were not given back"
        return ""


class SteadinessCheck(NamedTuple):
    """What f16 is asked between two cells."""

    tokens: npt.NDArray[np.int32]
    """The first chunk, shape ``(ctx,)``."""
    shape: BatchShape


class KeptWorker(Worker):
    """A worker whose process serves one cell after another.

    Methods raise :class:`CellError` as those of :class:`Worker` do.
    """

    def begin(self) -> None:
        """What is logged and counted from here on is the next cell's."""
        self.chosen, self.decode_seconds = [], 0.0
        self._log_start = self._log_size()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Put the open context aside; what is opened in the block is closed at its end."""
        before = self._pair, self.chosen, self.decode_seconds, self._log_start
        self.exchange(PutAside(), Done)
        self.begin()
        try:
            yield
        finally:  # a worker that refused something still has the context that was put aside
            self.exchange(TakeBack(), Done)
            self._pair, self.chosen, self.decode_seconds, self._log_start = before

    def prove(self, check: SteadinessCheck) -> Proof:
        """Close the cell's context, decode f16's first chunk in a new one, look at the memory."""
        shape = check.shape
        asked = ProveSteady(
            scored=shape.scored,
            ctx=shape.ctx,
            batch=min(shape.batch, shape.ctx),
            ubatch=shape.ubatch,
            threads=shape.threads,
        )
        found = self.exchange(asked, SteadyProof, check.tokens.astype(np.int32).tobytes())
        return Proof(found.digest, found.memory)
