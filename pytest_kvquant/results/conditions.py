"""Under which conditions a run measured: environment, model, corpus, settings, reference."""

from __future__ import annotations

import msgspec

from pytest_kvquant.results.library import Library


class EnvironmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, the library and the variables that the workers saw."""

    library: Library
    """The build that was measured."""
    machine: str
    """Architecture, as `uname -m`."""
    system: str
    """Operating system and release."""
    cpu: str
    """The processor's name."""
    memory: int
    """Bytes of main memory."""
    python: str
    """Version of pytest's interpreter."""
    plugin: str
    """Version of pytest-kvquant."""
    variables_dropped: dict[str, str]
    """Toggles that stood in the shell and were left out."""
    variables_set: dict[str, str]
    """Variables that workers started with on purpose."""
    started: str
    """UTC, ISO 8601."""
    os_version: str = ""
    """Distribution and C library, or version and build of macOS; empty: an older record."""
    driver: str = ""
    """Driver of the GPU that computed, with its version; empty: the CPU alone, or an older
    record."""
    worker_hook: str = ""
    """SHA-256 (16 hex digits) of the Python file that workers ran first, by KVQUANT_WORKER_HOOK:
    figures are those of an engine that was changed on purpose. Empty: none."""


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The model of the run."""

    path: str
    """Of the GGUF file."""
    name: str
    """From its header."""
    architecture: str
    """From its header."""
    fingerprint: str
    """Hash of the file, 16 hex digits."""
    size: int
    """Bytes."""
    vocabulary: int
    """Tokens of the vocabulary."""
    context_trained: int
    """Tokens; 0 where the header does not say."""


class CorpusRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The text of the run and the chunks drawn from it, in order."""

    path: str
    """Of the text."""
    name: str
    """For people."""
    fingerprint: str
    """SHA-256 of its bytes, 16 hex digits."""
    tokens: int
    """Tokens of the whole text."""
    chunks: tuple[int, ...]
    """Numbers of the chunks within the corpus, in the order drawn."""
    tokens_hash: str
    """SHA-256 over the tokens of these chunks, 16 hex digits."""
    remark: str = ""
    """How the text was made, where that is not the usual way."""
    unigram_ppl: float = 0.0
    """Perplexity that the frequencies of the text's own tokens give; 0: an older record."""


class SettingsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens were cut and batched: part of the conditions of every figure."""

    ctx: int
    """Tokens per chunk."""
    scored: int
    """Scored tokens per chunk."""
    sequences: int
    """Chunks per batch."""
    batch: int
    """n_batch, tokens."""
    ubatch: int
    """n_ubatch, tokens."""
    threads: int
    """CPU threads."""
    gpu_layers: int
    """Layers offloaded; -1: all."""
    order: str
    """Of the chunks: `shuffled` or `sequential`."""
    seed: int
    """Of the shuffled order."""
    profile: str
    """`quick`, `pr` or `nightly`."""
    cap: int
    """Most chunks per cell."""
    early: bool
    """Whether a cell may be decided before the cap."""
    strict: bool
    """Whether what is undecided fails."""
    setup: dict[str, str] = {}
    """Further options of llama.cpp by its own names; what is not there had its default."""


class ReferenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the run did for its reference, in chunks."""

    computed: int
    """Chunks computed."""
    reused: int
    """Chunks found in the store."""
    damaged: int
    """Chunks found damaged and computed again."""
    decode_seconds: float
    """Seconds inside `llama_decode` for them."""
    library: Library | None = None
    """The build that it comes from, where that is not the measured one."""
    file: str = ""
    """The file of llama-perplexity that it comes from: 16 bits a logit, clamped 16 nats below the
    largest; empty where it was computed."""
    by_cell: bool = False
    """Whether each cell is compared with the same pair on that build, not with f16/f16."""

    @property
    def subject(self) -> str:
        """What every figure of the run is measured against, in words."""
        if self.library is None:
            return "f16/f16"
        pair = "the same pair" if self.by_cell else "f16/f16"
        return f"{pair} of the reference build"
