"""Child side: a context whose graphs are watched, and whose every operation the mirror is told."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.child.codec import Codecs
from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.mirror import Mirrors
from pytest_kvquant.engine.child.nodes import Ggml
from pytest_kvquant.engine.child.oracle import Oracle
from pytest_kvquant.engine.child.tap import Tap
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.engine.options import flag
from pytest_kvquant.numerics.arrays import F32, I32

if TYPE_CHECKING:
    from typing import Unpack

    from pytest_kvquant.engine.messages.context import ContextFields

FLASH_ATTENTION_DISABLED = 0


class Watched(Context):
    """A context with an oracle beside it.

    Args:
        layers: those whose nodes are judged.
        facts: of the model's header.
        flash: whether attention is one operation; K and V of plain numbers can do without.
        shape: as :class:`Context` takes it.
    """

    def __init__(
        self,
        model: LoadedModel,
        ggml: Ggml,
        codecs: Codecs,
        *,
        layers: Sequence[int],
        facts: Facts,
        seed: int,
        flash: bool = True,
        unified: bool = False,
        **shape: Unpack[ContextFields],
    ) -> None:
        llama = model.llama
        unified = unified or flag(model.setup, "kv-unified", False)
        self.mirrors = Mirrors(
            layers,
            unified=unified or shape["sequences"] == 1,
            equal=bool(
                llama.llama_model_is_hybrid(model.pointer)
                or llama.llama_model_is_recurrent(model.pointer)
            ),
        )
        self.oracle = Oracle(Values(codecs), facts, self.mirrors, seed=seed)
        self.tap = Tap(ggml, self.oracle, layers)
        self._flash = flash
        super().__init__(model, unified=unified, prepare=self._prepare, **shape)

    def _prepare(self, parameters: ctypes.Structure) -> None:
        self.tap.attach(parameters)
        if not self._flash:
            parameters.flash_attn_type = FLASH_ATTENTION_DISABLED

    def watch(self, on: bool) -> None:
        """Judge the next graphs, or let them pass."""
        self.tap.active = self.oracle.judging = on

    def _decode_batch(
        self, tokens: I32, positions: I32, sequences: I32, outputs: npt.NDArray[np.generic]
    ) -> F32:
        """One batch, whose nodes are judged; raises what the oracle raised."""
        self.mirrors.tell("given", positions, sequences)
        self.tap.begin()
        rows = super()._decode_batch(tokens, positions, sequences, outputs)
        self.tap.check()
        return rows

    def clear(self) -> None:
        """Forget every sequence."""
        super().clear()
        self.mirrors.tell("clear")
