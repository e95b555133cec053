"""What a member of the zoo is: an architecture, its header, its tensors, what it is there for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Value = bool | int | float | str | list[int] | list[bool] | list[float]

Feature = Literal[
    "grouping",
    "window",
    "chunked window",
    "softcap",
    "sinks",
    "alibi",
    "scale",
    "rope",
    "partial rope",
    "rope factors",
    "yarn",
    "layers without rope",
    "q and k norm",
    "q and k bias",
    "temperature",
    "two head sizes",
    "shared KV layers",
    "latent attention",
    "gated attention",
    "recurrent layers",
    "experts",
]
"""What a kernel or a graph could leave out, or take for granted."""


class Tensor(NamedTuple):
    """A weight of normal values; in half precision where it is a matrix."""

    name: str
    shape: tuple[int, ...]
    """As NumPy has it: output features first."""
    std: float
    mean: float = 0.0
    half: bool = False


class Member(NamedTuple):
    """One model of the zoo."""

    name: str
    architecture: str
    like: str
    """Real checkpoints of this shape."""
    head_k: int
    """Elements of a K head; of the widest, where layers differ."""
    head_v: int
    group: int
    """Query heads per KV head; the most, where layers differ."""
    features: tuple[Feature, ...]
    header: Mapping[str, Value]
    """Keys without the architecture in front; keys with a namespace of their own as they are."""
    tensors: tuple[Tensor, ...]
    window: int = 0
    """Tokens that a window layer looks back on; 0: none has a window."""
    bos: bool = False
    """Whether every sequence starts with BOS."""
    seed: int = 0
