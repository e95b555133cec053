"""Messages about library, model and process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pytest_kvquant.engine.messages.base import Said


@dataclass(frozen=True, kw_only=True)
class Done(Said):
    """It is done, and there is nothing to say of it."""

    NAME: ClassVar = "done"


@dataclass(frozen=True, kw_only=True)
class Refusal(Said):
    """The library does not do what was asked."""

    NAME: ClassVar = "refused"
    kind: str
    """Name of the exception."""
    message: str


@dataclass(frozen=True, kw_only=True)
class WorkerFailed(Refusal):
    """The worker itself failed, and ends."""

    NAME: ClassVar = "failed"


@dataclass(frozen=True, kw_only=True)
class Alive(Said):
    """It is still at work."""

    NAME: ClassVar = "alive"


@dataclass(frozen=True, kw_only=True)
class LoadLibrary(Said):
    """Load the library and the bindings, if they are not."""

    NAME: ClassVar = "library"
    directory: str | None
    """``None``: the one that the bindings brought."""
    full: bool
    """Whether to say what it is."""
    servers: Sequence[str]
    """RPC servers to connect to."""


@dataclass(frozen=True, kw_only=True)
class LibraryLoaded(Said):
    """The answer."""

    NAME: ClassVar = "library_loaded"
    identity: Mapping[str, object]
    """As :class:`pytest_kvquant.results.library.Library`; empty where it was not asked for."""


@dataclass(frozen=True, kw_only=True)
class LoadModel(Said):
    """Load a model, if it is not."""

    NAME: ClassVar = "model"
    path: str
    gpu_layers: int
    device: str | None
    """The only device to use; ``None``: the library chooses."""
    vocabulary_only: bool
    setup: Mapping[str, object]
    """Options of llama.cpp by name."""


@dataclass(frozen=True, kw_only=True)
class ModelLoaded(Said):
    """What its vocabulary is like."""

    NAME: ClassVar = "model_loaded"
    vocabulary: int
    bos: int | None
    """The token that every sequence starts with; ``None``: it wants none."""
    template: str | None
    """Its chat template; ``None``: it brings none."""
    texts: Mapping[str, str]
    """Of its markers, by their role."""


@dataclass(frozen=True, kw_only=True)
class Tokenize(Said):
    """Tokens of the payload, UTF-8 text; they come as the answer's payload, int32."""

    NAME: ClassVar = "tokenize"
    special: bool
    """Whether the words of a chat template's markers are their tokens."""


@dataclass(frozen=True, kw_only=True)
class Detokenize(Said):
    """The text of the payload's tokens, int32; it comes as the answer's payload, UTF-8."""

    NAME: ClassVar = "detokenize"


@dataclass(frozen=True, kw_only=True)
class CopyYourself(Said):
    """Make a copy of this process, which answers on one descriptor that follows and prints to the
    other."""

    NAME: ClassVar = "fork"


@dataclass(frozen=True, kw_only=True)
class Copied(Said):
    """The answer."""

    NAME: ClassVar = "forked"
    pid: int
    """0: it was not copied."""
    threads: int
    """Why not: so many threads would be missing."""


@dataclass(frozen=True, kw_only=True)
class Reap(Said):
    """Say how a copy ended."""

    NAME: ClassVar = "reap"
    pid: int
    kill: bool
    patience: float
    """Seconds to wait for its end."""


@dataclass(frozen=True, kw_only=True)
class Reaped(Said):
    """The answer."""

    NAME: ClassVar = "reaped"
    code: int | None
    """As :mod:`subprocess` has it; ``None``: it runs."""


@dataclass(frozen=True, kw_only=True)
class LimitMemory(Said):
    """Limit this process."""

    NAME: ClassVar = "limit"
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class MemoryLimited(Said):
    """The answer."""

    NAME: ClassVar = "limited"
    enforced: bool
    """Whether the system enforces it."""
