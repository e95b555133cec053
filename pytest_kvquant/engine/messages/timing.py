"""Messages of the timing, and of the search for the largest context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pytest_kvquant.engine.messages.base import Said

Profile = Mapping[str, Sequence[Sequence[float]]]
"""By kind: depth, and nanoseconds of a token of each stream there; 0 of one that stayed behind."""


@dataclass(frozen=True, kw_only=True)
class OpenStreams(Said):
    """Make a context per pair."""

    NAME: ClassVar = "time_open"
    pairs: Sequence[tuple[str, str]]
    at_once: Mapping[str, int]
    """By the name of a test: tokens of each ``llama_decode``, synchronized one by one; 0: as many
    as ``n_batch``, synchronized at the end."""
    ctx: int
    batch: int
    ubatch: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class StreamsOpened(Said):
    """What they are; what ``llama-bench`` says of a model, under its names."""

    NAME: ClassVar = "streams_opened"
    types: Sequence[Sequence[tuple[str, str | None]]]
    """K and V as held, by stream and layer; ``None``: it stores no V."""
    model_type: str
    model_size: int
    model_n_params: int
    rollback: str
    """``remove``, or ``restore`` where tokens cannot be removed."""


@dataclass(frozen=True, kw_only=True)
class AtStream(Said):
    """Work on a stream begins; told before anything is timed."""

    NAME: ClassVar = "at_stream"
    number: int | None
    """``None``: on several by turns."""


@dataclass(frozen=True, kw_only=True)
class ExtendStreams(Said):
    """Extend caches."""

    NAME: ClassVar = "time_extend"
    depth: int
    streams: Sequence[int]
    """Numbers of those that go on; the others stay where they are."""


@dataclass(frozen=True, kw_only=True)
class StreamsExtended(Said):
    """The answer."""

    NAME: ClassVar = "streams_extended"
    prefilled: Sequence[int]
    """Tokens so far, by stream."""
    profile: Profile


@dataclass(frozen=True, kw_only=True)
class WarmUp(Said):
    """Warm streams up."""

    NAME: ClassVar = "time_warm"
    streams: Sequence[int]
    """Their numbers."""
    kind: str
    count: int
    """Tokens of a test."""
    seconds: float
    """Of a sample."""


@dataclass(frozen=True, kw_only=True)
class WarmedUp(Said):
    """The answer."""

    NAME: ClassVar = "warmed_up"
    repeats: Sequence[int]
    """Repetitions of the test that make a sample, of each that was warmed up."""
    parts: int
    """Or the test is taken in so many, a sample each; 1: whole."""


@dataclass(frozen=True, kw_only=True)
class TakeSamples(Said):
    """Take a sample per entry of ``order``."""

    NAME: ClassVar = "time_samples"
    kind: str
    count: int
    order: Sequence[int]
    """Numbers of streams."""


@dataclass(frozen=True, kw_only=True)
class SamplesTaken(Said):
    """The answer."""

    NAME: ClassVar = "samples_taken"
    samples: Sequence[int]
    """Nanoseconds of a test."""
    library_ns: int
    """Inside library calls so far."""


@dataclass(frozen=True, kw_only=True)
class TryContext(Said):
    """Fill a context and decode a batch at its end."""

    NAME: ClassVar = "ceiling"
    type_k: str
    type_v: str
    ctx: int
    batch: int
    ubatch: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class ContextTried(Said):
    """The answer."""

    NAME: ClassVar = "context_tried"
    sequences: int
    """By how many it was filled."""
