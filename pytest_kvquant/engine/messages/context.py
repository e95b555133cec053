"""The shape of a context: what every message says that asks for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from pytest_kvquant.engine.messages.base import Said


class ContextFields(TypedDict):
    """A shape by the names that a message says and that a context takes."""

    type_k: str
    type_v: str
    """ggml names."""
    ctx: int
    """Tokens per sequence."""
    sequences: int
    """How many it holds at once."""
    batch: int
    ubatch: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class ContextShape(Said):
    """How a context is made."""

    type_k: str
    type_v: str
    ctx: int
    sequences: int
    batch: int
    ubatch: int
    threads: int

    @property
    def shape(self) -> ContextFields:
        """Without what a message says beside it."""
        return {
            "type_k": self.type_k,
            "type_v": self.type_v,
            "ctx": self.ctx,
            "sequences": self.sequences,
            "batch": self.batch,
            "ubatch": self.ubatch,
            "threads": self.threads,
        }
