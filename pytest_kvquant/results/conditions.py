"""Under which conditions a run measured: environment, model, corpus, settings, reference."""

from __future__ import annotations

import msgspec

from pytest_kvquant.results.library import Library


class EnvironmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, the library and the variables that the workers saw."""

    library: Library
    machine: str
    system: str
    cpu: str
    memory: int
    python: str
    plugin: str
    """Version of pytest-kvquant."""
    variables_dropped: dict[str, str]
    variables_set: dict[str, str]
    started: str
    """UTC, ISO 8601."""


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The model of the run."""

    path: str
    name: str
    architecture: str
    fingerprint: str
    size: int
    vocabulary: int
    context_trained: int


class CorpusRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The text of the run and the chunks drawn from it, in order."""

    path: str
    name: str
    fingerprint: str
    tokens: int
    chunks: tuple[int, ...]
    """Numbers of the chunks within the corpus, in the order drawn."""
    tokens_hash: str
    """SHA-256 over the tokens of these chunks, 16 hex digits."""


class SettingsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens were cut and batched: part of the conditions of every figure."""

    ctx: int
    scored: int
    sequences: int
    batch: int
    ubatch: int
    threads: int
    gpu_layers: int
    order: str
    seed: int
    profile: str
    cap: int
    early: bool
    strict: bool


class ReferenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the run did for its reference, in chunks."""

    computed: int
    reused: int
    damaged: int
    decode_seconds: float
    library: Library | None = None
    """The build that it comes from, where that is not the measured one."""
    by_cell: bool = False
    """Whether each cell is compared with its own pair on that build, not with f16/f16."""

    @property
    def subject(self) -> str:
        """What every figure of the run is measured against, in words."""
        if self.library is None:
            return "f16/f16"
        pair = "the same pair" if self.by_cell else "f16/f16"
        return f"{pair} of the reference build"
