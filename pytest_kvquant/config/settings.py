"""Frozen, validated settings and the one resolver: command line > file > defaults."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from pytest_kvquant.config.overrides import Expect, FloorOverride
from pytest_kvquant.config.setup import SetupValue
from pytest_kvquant.config.speed_tests import NAMES

_INT32 = (
    "ctx", "batch", "ubatch", "threads", "chunks", "gpu_layers", "recall", "decode", "trajectory",
    "ceiling_max", "rounds", *NAMES,
)  # fmt: skip
"""What llama.cpp takes as an int32."""


if TYPE_CHECKING:

    class TokensOfTests(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        """Tokens of each speed test, by its name."""
else:
    TokensOfTests = msgspec.defstruct(
        "TokensOfTests",
        [(name, int | None, None) for name in NAMES],
        **{"frozen": True, "forbid_unknown_fields": True, "kw_only": True},
    )


class Settings(
    TokensOfTests, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Everything a run depends on. Field names are the options' names with underscores.

    Of each speed test, by its name: the tokens of one test.
    """

    model: Path | None = None
    corpus: tuple[str, ...] = ()
    lib: Path | None = None
    python: Path | None = None
    reference_lib: Path | None = None
    reference_python: Path | None = None
    reference_devices: tuple[str, ...] = ()
    reference_logits: Path | None = None
    compare_cells: bool = False
    types: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    shard: str | None = None
    ctx: int = 512
    chunks: int | None = None
    scored: int | None = None
    order: Literal["sequential", "shuffled"] = "shuffled"
    seed: int = 0
    threads: int | None = None
    gpu_layers: int = -1
    batch: int = 2048
    ubatch: int = 512
    timeout: float = 600.0
    decode: int = 128
    trajectory: int = 16
    recall: int | None = None
    robustness: bool = False
    profile: Literal["quick", "pr", "nightly"] = "pr"
    ratchet: bool = False
    """Whether what got better than its baseline passes, and is proposed as a new one."""
    fail_fast: bool = False
    strict: bool = False
    fresh: bool = False
    store: Path | None = None
    store_limit: float = 20.0
    baselines: Path | None = None
    json: Path | None = None
    report: Path | None = None
    summary: Path | None = None
    live: bool = False
    lines: Path | None = None
    table: Literal["article", "article:csv", "article:latex"] | None = None
    evidence: Path | None = None
    probe: Literal["off", "fail", "always"] = "always"
    isolation: Literal["fork", "warm", "fresh"] | None = None
    speed: Literal["on", "off"] = "on"
    disturbed: Literal["repeat", "ignore"] = "repeat"
    """What becomes of speeds while other programs use the device: taken again, and undecided where
    that stays so; or nothing."""
    depths: tuple[int, ...] | None = None
    rounds: int | None = None
    sample: float | None = None
    speed_baseline: Path | None = None
    healthy: Literal["on", "off"] = "on"
    """Whether kernels are judged against an emulated healthy cell, or by owned budgets alone."""
    coverage: Literal["off", "minimal", "standard", "full"] | None = None
    scenarios: tuple[str, ...] = ()
    zoo: str | None = None
    ceiling: bool = False
    ceiling_max: int | None = None
    ceiling_memory: float | None = None
    memory_limit: float | None = None
    budgets: dict[str, dict[str, float]] = {}
    """By pattern of pairs, then by the key that a gate or a check declares."""
    drift: dict[str, dict[str, float]] = {}
    """Budgets between two builds, ``[drift."K/V"]``."""
    floors: dict[str, FloorOverride] = {}
    environment: dict[str, str] = {}
    variant: str | None = None
    """Which of ``variants`` counts, over ``environment``."""
    variants: dict[str, dict[str, str]] = {}
    """Further environments of the same build, by name."""
    expect: dict[str, Expect] = {}
    llama: str = ""
    rpc: tuple[str, ...] = ()
    setup: dict[str, SetupValue] = {}
    """Options of llama.cpp by name, from ``--kv-llama``, ``--kv-rpc``, ``[model]``,
    ``[context]``."""

    def __post_init__(self) -> None:
        for name in ("ctx", "batch", "ubatch", "timeout", "store_limit"):
            _require(getattr(self, name) > 0, name, "must be above zero")
        for name in ("timeout", "store_limit"):
            _require(math.isfinite(getattr(self, name)), name, "must be a finite number")
        for name in _INT32:
            _require((getattr(self, name) or 0) < 1 << 31, name, "must be below 2^31")
        _require(self.chunks is None or self.chunks > 0, "chunks", "must be above zero")
        _require(self.ctx >= 8, "ctx", "must be at least 8 tokens")
        for name in ("rounds", "sample", "ceiling_max", "ceiling_memory", "memory_limit"):
            value = getattr(self, name)
            _require(value is None or 0 < value < math.inf, name, "must be above zero")
        for name in (*NAMES, "decode", "trajectory", "recall"):
            _require((getattr(self, name) or 0) >= 0, name, "must not be negative")
        if self.depths is not None:
            _require(bool(self.depths), "depths", "needs at least one depth")
            _require(min(self.depths, default=0) >= 0, "depths", "must not be negative")
            _require(max(self.depths, default=0) < 1 << 31, "depths", "must be below 2^31")
        _require(self.threads is None or self.threads > 0, "threads", "must be above zero")
        _require(self.gpu_layers >= -1, "gpu-layers", "must be -1 (all) or a number of layers")
        _require(self.seed >= 0, "seed", "must not be negative")
        _require(self.ubatch <= self.batch, "ubatch", f"must not exceed --kv-batch {self.batch}")
        if self.reference_logits is not None:
            for name in ("reference_lib", "corpus", "scored"):
                _require(
                    not getattr(self, name),
                    "reference_logits",
                    f"brings its own tokens and reference: leave --kv-{name.replace('_', '-')} out",
                )
        if self.scored is not None:
            _require(
                0 < self.scored < self.ctx,
                "scored",
                f"must lie between 1 and --kv-ctx − 1 = {self.ctx - 1}: "
                "the last token of a chunk has no successor",
            )

    @property
    def coverage_level(self) -> str:
        """How much of the kernels is examined: as asked for, or by the profile."""
        by_profile = {"quick": "minimal", "pr": "standard", "nightly": "full"}
        return self.coverage or by_profile[self.profile]

    def tokens_of(self, test: str) -> int | None:
        """Tokens of a speed test, by its name; ``None``: as usual."""
        found: int | None = getattr(self, test)
        return found

    @property
    def scored_tokens(self) -> int:
        """Scored tokens per chunk: the second half, as ``llama-perplexity`` scores it."""
        return self.scored if self.scored is not None else self.ctx - 1 - self.ctx // 2


def _require(condition: bool, name: str, rule: str) -> None:
    if not condition:
        raise ValueError(f"--kv-{name.replace('_', '-')} {rule}")
