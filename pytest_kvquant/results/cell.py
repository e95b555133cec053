"""One pair: its verdict, the gates and checks that led to it, its figures."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_kvquant.inputs.geometry import Source
from pytest_kvquant.numerics.metrics import KLProfile, Quality
from pytest_kvquant.results.baseline import BaselineRecord
from pytest_kvquant.results.diagnosis import Diagnosis
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.results.kernels import Examination
from pytest_kvquant.results.memory import SteadyMemory
from pytest_kvquant.results.operations import OperationRecord, on_cpu
from pytest_kvquant.results.quantizer import QuantizerRecord
from pytest_kvquant.results.recall import RecallPoint
from pytest_kvquant.results.texts import Robustness, TextFigures

Verdict = Literal[
    "pass", "fail", "inconclusive",
    "crashed", "timeout", "out-of-memory", "strained", "server-lost", "unsupported", "no-reference",
    "non-finite",
    "substituted", "aliased", "inactive", "off-device", "error",
]  # fmt: skip


Answer = Literal["pass", "fail", "inconclusive", "not judged"]


class HealthyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the pair must cost on these tokens, by an emulation with f16's kernels."""

    kl_mean: float | None
    """Mean KL of the emulated cell over all its chunks, nats."""
    decode_kl_mean: float | None
    """The same by the decode path, nats."""
    chunks: int
    """Chunks that were emulated."""
    computed: int
    """Of them, those that were not found in the store."""
    per_chunk: tuple[float, ...]
    """Mean KL of each chunk, nats."""
    seconds: float
    """Wall time that the emulation took."""
    problem: str | None = None
    """Why there is none, in words."""
    draws: tuple[float, ...] = ()
    """Mean KL with other roundings that are as likely, nats; taken where the cell is off by little,
    to see by how much chance moves all chunks alike."""


class QualitySection(msgspec.Struct, frozen=True, kw_only=True):
    """Quality by path: many tokens at once, and one at a time, each against f16 the same way."""

    prefill: Quality
    """Many tokens at once."""
    decode: Quality | None = None
    """By the decode path, on fewer tokens."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A fact about a cell: what it is, where it ran, whether its paths agree."""

    name: str
    """As declared (``kvquant explain``): ``types``, ``attention``, ``recall``, ``distinct`` …"""
    verdict: str
    """``pass``, ``fail``, or ``inconclusive`` where the library does not tell."""
    text: str
    """What was found, in a sentence."""
    figure: float | None = None
    """The figure that decided, in the check's own unit."""
    limit: float | None = None
    """What it was held against."""


class CacheSize(msgspec.Struct, frozen=True, kw_only=True):
    """One cache of a context, as large as it was allocated."""

    cells: int
    """Tokens that it holds, of all sequences."""
    layers: int
    """Layers that it serves."""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a cell ran, as the library's log says."""

    kv_buffers: dict[str, float]
    """MiB of KV cache by device."""
    graph_splits: int | None
    """How often a graph changes device; ``None`` where the library does not tell."""
    caches: tuple[CacheSize, ...] = ()
    """Those that the buffers hold: one, or a base and a sliding-window one."""
    operations: tuple[OperationRecord, ...] = ()
    """Which operations ran on which device, by path; empty where the library does not tell."""

    @property
    def off_device(self) -> bool:
        """Whether attention or writes ran on the CPU though another device computes."""
        return bool(on_cpu(self.operations))

    @property
    def allocated(self) -> float:
        """MiB of KV cache on all devices; 0 where the library does not tell."""
        return sum(self.kv_buffers.values())


class LayerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The effective types of one layer of the cache, and its bytes per token."""

    k: str
    """ggml name of K's type."""
    v: str | None
    """ggml name of V's type; none where the architecture stores no V."""
    k_row: int
    """Bytes of a K row, one token."""
    v_row: int
    """Bytes of a V row, one token."""


class CensusRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache really holds, read from its own serialized state."""

    layers: tuple[LayerRecord, ...]
    """Types and bytes per layer, in the cache's order."""
    bytes_per_token: float | None
    """Exact where the layout is understood; from the growth of the state otherwise."""
    expected_bytes_per_token: int
    """By the model's geometry and ggml's block sizes; where ``[expect]`` declares a substitution,
    those of the types that are held instead."""
    compression_expected: float
    """Expected bytes per token of f16/f16 over those."""
    kind: str
    """``agree``, ``padded``, ``substituted``, ``differs`` or ``unreadable``."""
    text: str
    """The census in words."""
    source: Source = "header"
    """Where the expected sizes come from: the model's header, or, where that does not explain the
    cache of f16/f16, that cache."""
    understood: bool = True
    """Whether the state is readable, and that of f16/f16: else nobody knows how many bytes a token
    should take."""

    @property
    def compression_measured(self) -> float | None:
        """Bytes per token of f16/f16 over those that were found; ``None``: not known."""
        if not self.bytes_per_token:
            return None
        return self.expected_bytes_per_token * self.compression_expected / self.bytes_per_token


class TwoPaths(msgspec.Struct, frozen=True, kw_only=True):
    """The same tokens by the decode path and by the prefill path, of one cell."""

    kl: float
    """Mean KL(prefill ‖ decode), nats."""
    ppl_prefill: float
    """PPL of f16 on these tokens, many at once."""
    ppl_decode: float
    """PPL of f16 on the same tokens, one at a time."""


class NoiseFloor(msgspec.Struct, frozen=True, kw_only=True):
    """What f16 shows against f16 in another n_ubatch and with another number of threads."""

    kl: float
    """Mean KL, nats."""
    ubatch: int
    """n_ubatch of the other f16, tokens."""
    threads: int
    """Threads of the other f16."""
    tie_band: float
    """Logits: twice the 99.9 % quantile of the change of the top-1/top-2 margin."""
    shapes: dict[str, float]
    """Mean KL between batch shapes, by shape."""
    paths: TwoPaths | None = None
    """Its tokens one at a time against the same at once; ``None``: none were asked for."""


class Trajectory(msgspec.Struct, frozen=True, kw_only=True):
    """Greedy continuations of a cell against those of f16."""

    tokens: int
    """Tokens of each continuation."""
    first_divergence: tuple[int, ...]
    """Per prompt, the number of tokens before the first difference."""
    agreement: float
    """Mean share of a continuation before its first difference, 0..1."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that a cell took."""

    wall: float = 0.0
    """Seconds of the cell, the explanation of a failure and what is measured again included."""
    prefill: float = 0.0
    """Of the wall time, the start of the worker and the prefill quality, the emulated healthy cell
    and f16's logits of the same chunks included where they were not stored."""
    paths: float = 0.0
    """Of the wall time, the census, the decode path, greedy text, batch shapes, steady memory,
    recall and further texts."""
    decode: float = 0.0
    """Seconds inside `llama_decode` for the cell's own contexts, in the process that the figures
    are from; ``decode`` of ``parts`` also counts f16, proofs and what was measured again."""
    parts: dict[str, float] = {}
    """Seconds by what they went into, most first; they sum to ``wall``: see docs/processes.md."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One pair: its verdict, the gates that led to it, its figures."""

    pair: str
    """As `K/V`."""
    verdict: Verdict
    """What the cell amounts to."""
    excused: bool = False
    """Its tests are skipped: of an ``unsupported`` pair the library gives its reason, and nobody
    named the pair; or ``[expect]`` declares the verdict of a pair that cannot be measured."""
    gates: tuple[Gate, ...] = ()
    """Every gated figure."""
    kernel: Answer = "not judged"
    """Does the cell cost what its types must cost here, and do its paths agree?"""
    fitness: Answer = "not judged"
    """Is it good enough on this model, by budgets that the owner set? Without any, not judged."""
    advised: tuple[Gate, ...] = ()
    """Figures against published budgets of another model: advice, which decides nothing."""
    quantizers: tuple[QuantizerRecord, ...] = ()
    """The reference quantizers of its types, against arithmetic."""
    healthy: HealthyRecord | None = None
    """The emulated healthy cell beside it; ``None`` for what is compared with itself."""
    not_significant: tuple[str, ...] = ()
    """Gates that fail alone, but not in the light of the whole matrix (Holm)."""
    quality: QualitySection | None = None
    """Figures against f16, by path; none where the cell could not be measured."""
    per_chunk: dict[str, tuple[float, ...]] = {}
    """Figures per chunk: ``kl``, ``ln_ppl``, ``tail``, ``flips``, ``top1``."""
    profile: KLProfile | None = None
    """KL over the position in the chunk, and its distribution, by the prefill path."""
    digests: tuple[str, ...] = ()
    """Hash of the scored logits of each chunk: equal digests are bit-identical logits."""
    checks: tuple[Check, ...] = ()
    """What the cell is, where it ran, whether its paths agree."""
    census: CensusRecord | None = None
    """What the cache really holds."""
    placement: Placement | None = None
    """Where the cache lies."""
    trajectory: Trajectory | None = None
    """Greedy text against that of f16."""
    shapes: dict[str, float] = {}
    """Mean KL between batch shapes of this cell, by shape."""
    memory: SteadyMemory | None = None
    """What its decodes and contexts leave behind; none where it was not looked at."""
    message: str | None = None
    """What happened, where the cell could not be measured."""
    log: str | None = None
    """The end of the library's log, where the cell could not be measured."""
    traceback: str | None = None
    """Where our own code failed, of a cell with the verdict ``error``."""
    timing: Timing | None = None
    """What the measurement took."""
    process: str = ""
    """Where the figures are from: a ``fresh`` process, a ``fork`` of one that had loaded library
    and model, or one that was kept ``warm`` and shown to be as before."""
    again: str = ""
    """Why the cell was measured a second time, in a fresh process; empty where it was not."""
    diagnosis: Diagnosis | None = None
    """What the cache holds, layer by side by path, and the suspect where the cell fails."""
    texts: tuple[TextFigures, ...] = ()
    """The cell on the further texts of the run."""
    robustness: tuple[Robustness, ...] = ()
    """The cell on its own text, disturbed; empty: not measured."""
    recall: tuple[RecallPoint, ...] = ()
    """What it gains from having read a passage before, by distance; empty: not measured."""
    kernels: Examination | None = None
    """What was found about the kernels, against exact arithmetic."""
    baseline: BaselineRecord | None = None
    """The cell beside what was accepted earlier."""
