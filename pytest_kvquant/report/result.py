"""The one result model: what a run measured, under which conditions, with which verdicts.

``--kv-json`` writes it as it is; the terminal draws it. ``schema`` names the version of its shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from pytest_kvquant.errors import ResultError
from pytest_kvquant.hardware import Hardware
from pytest_kvquant.numerics.diagnosis import Diagnosis
from pytest_kvquant.numerics.gates import Gate
from pytest_kvquant.numerics.metrics import KLProfile, Quality
from pytest_kvquant.report.advice import Advice
from pytest_kvquant.report.baseline import BaselineRecord, BaselinesRecord
from pytest_kvquant.report.ceiling import Ceiling
from pytest_kvquant.report.speed import SpeedCell

SCHEMA = "pytest-kvquant/1"

Verdict = Literal[
    "pass", "fail", "inconclusive",
    "crashed", "timeout", "out-of-memory", "unsupported", "no-reference", "non-finite",
    "substituted", "aliased", "inactive",
]  # fmt: skip


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A backend device as the library describes it; memory in bytes."""

    name: str
    description: str
    gpu: bool
    free: int
    total: int


class CacheType(msgspec.Struct, frozen=True, kw_only=True):
    """A ggml type of the library: ``bytes`` hold ``block`` values."""

    id: int
    block: int
    bytes: int
    cache: bool
    """Whether a KV cache can be of this type."""


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """The llama.cpp build that was measured."""

    path: str
    bindings: str
    """Version of llama-cpp-python."""
    python: str
    llama_version: str | None
    ggml_version: str | None
    ggml_commit: str | None
    system_info: str | None
    files: tuple[str, ...]
    hash: str
    """SHA-256 over the llama and ggml libraries in use, 16 hex digits."""
    devices: tuple[Device, ...]
    types: dict[str, CacheType]
    backends: tuple[str, ...] = ()
    """Backends that the build has registered, whether or not they have a device."""

    @property
    def build(self) -> str:
        """A short name of the build for people."""
        commit = self.ggml_commit or "commit unknown"
        return f"{self.llama_version or self.ggml_version or 'llama.cpp'} ({commit})"

    @property
    def device(self) -> str:
        """The device that computes: the first GPU, else the CPU."""
        return self._computing.name

    @property
    def chip(self) -> str:
        """What computes, in the library's words: figures of equal chips are comparable."""
        return self._computing.description or self._computing.name

    @property
    def accelerators(self) -> str:
        """Its backends as ``llama-bench`` lists them: all but the CPU's, unless there is none."""
        return ",".join(name for name in self.backends if name != "CPU") or "CPU"

    @property
    def processors(self) -> str:
        """Its devices other than GPUs, as ``llama-bench`` lists them."""
        return ", ".join(device.description for device in self.devices if not device.gpu)

    @property
    def gpus(self) -> list[Device]:
        """Its devices other than the CPU's."""
        return [device for device in self.devices if device.gpu]

    def gpus_in_use(self, gpu_layers: int) -> list[Device]:
        """Those that compute when so many layers are offloaded (-1: all)."""
        return self.gpus if gpu_layers != 0 else []

    @property
    def _computing(self) -> Device:
        return (self.gpus or list(self.devices))[0]


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


class Shape(msgspec.Struct, frozen=True, kw_only=True):
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


class QualitySection(msgspec.Struct, frozen=True, kw_only=True):
    """Quality by path: many tokens at once, and one at a time, each against f16 the same way."""

    prefill: Quality
    decode: Quality | None = None
    """By the decode path, on fewer tokens."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A fact about a cell: what it is, where it ran, whether its paths agree."""

    name: str
    """``types``, ``placement``, ``footprint``, ``contents``, ``measurable``, ``active``,
    ``distinct``, ``shapes``, ``restore`` or ``trajectory``."""
    verdict: str
    """``pass``, ``fail``, or ``inconclusive`` where the library does not tell."""
    text: str
    figure: float | None = None
    limit: float | None = None


class CacheSize(msgspec.Struct, frozen=True, kw_only=True):
    """One cache of a context, as large as it was allocated."""

    cells: int
    """Tokens that it holds, of all sequences."""
    layers: int


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a cell ran, as the library's log says."""

    kv_buffers: dict[str, float]
    """MiB of KV cache by device."""
    graph_splits: int | None
    """How often a graph changes device; ``None`` where the library does not tell."""
    caches: tuple[CacheSize, ...] = ()
    """Those that the buffers hold: one, or a base and a sliding-window one."""

    @property
    def allocated(self) -> float:
        """MiB of KV cache on all devices; 0 where the library does not tell."""
        return sum(self.kv_buffers.values())


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """The effective types of one layer of the cache, and its bytes per token."""

    k: str
    v: str | None
    k_row: int
    v_row: int


class CensusRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache really holds, read from its own serialized state."""

    layers: tuple[Layer, ...]
    bytes_per_token: float | None
    """Exact where the layout is understood; from the growth of the state otherwise."""
    expected_bytes_per_token: int
    """By the model's geometry and ggml's block sizes; where ``[expect]`` declares a substitution,
    those of the types that are held instead."""
    compression: float
    """Expected bytes per token of f16/f16 over those."""
    kind: str
    """``agree``, ``padded``, ``substituted``, ``differs`` or ``unreadable``."""
    text: str
    understood: bool = True
    """Whether the state is readable and the model's header explains that of f16/f16: else nobody
    knows how many bytes a token should take."""

    @property
    def measured_compression(self) -> float | None:
        """Bytes per token of f16/f16 over those that were found; ``None``: not known."""
        if not self.bytes_per_token:
            return None
        return self.expected_bytes_per_token * self.compression / self.bytes_per_token


class NoiseFloor(msgspec.Struct, frozen=True, kw_only=True):
    """What f16 shows against f16 in another n_ubatch and with another number of threads."""

    kl: float
    """Mean KL, nats."""
    ubatch: int
    threads: int
    tie_band: float
    """Logits: twice the 99.9 % quantile of the change of the top-1/top-2 margin."""
    shapes: dict[str, float]
    """Mean KL between batch shapes, by shape."""


class Trajectory(msgspec.Struct, frozen=True, kw_only=True):
    """Greedy continuations of a cell against those of f16."""

    tokens: int
    """Tokens of each continuation."""
    first_divergence: tuple[int, ...]
    """Per prompt, the number of tokens before the first difference."""
    agreement: float
    """Mean share of a continuation before its first difference, 0..1."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: the cell's wall time, and what of it the worker spent inside ``llama_decode``."""

    wall: float
    prefill: float
    """Of the wall time, the start of the worker and the prefill quality."""
    paths: float
    """Of the wall time, the census, the decode path, greedy text and batch shapes."""
    decode: float


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One pair: its verdict, the gates that led to it, its figures."""

    pair: str
    verdict: Verdict
    gates: tuple[Gate, ...] = ()
    alone: tuple[str, ...] = ()
    """Gates that fail alone, but not in the light of the whole matrix (Holm)."""
    quality: QualitySection | None = None
    per_chunk: dict[str, tuple[float, ...]] = {}
    """Figures per chunk: ``kl``, ``ln_ppl``, ``tail``, ``flips``, ``top1``."""
    profile: KLProfile | None = None
    """KL over the position in the chunk, and its distribution, by the prefill path."""
    digests: tuple[str, ...] = ()
    """Hash of the scored logits of each chunk: equal digests are bit-identical logits."""
    checks: tuple[Check, ...] = ()
    """What the cell is, where it ran, whether its paths agree."""
    census: CensusRecord | None = None
    placement: Placement | None = None
    trajectory: Trajectory | None = None
    shapes: dict[str, float] = {}
    """Mean KL between batch shapes of this cell, by shape."""
    message: str | None = None
    """What happened, where the cell could not be measured."""
    log: str | None = None
    """The end of the library's log, where the cell could not be measured."""
    timing: Timing | None = None
    diagnosis: Diagnosis | None = None
    """What the cache holds, layer by side by path, and the suspect where the cell fails."""
    baseline: BaselineRecord | None = None
    """The cell beside what was accepted earlier."""


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


class Unmeasured(msgspec.Struct, frozen=True, kw_only=True):
    """Tests that measured nothing, for one reason."""

    reason: str
    tests: int
    open: bool
    """Whether that leaves a verdict open, which fails with ``--kv-strict``; otherwise it is what
    was asked for."""

    @property
    def text(self) -> str:
        """One line."""
        tests = "1 speed test" if self.tests == 1 else f"{self.tests} speed tests"
        return f"nothing was measured by {tests}: {self.reason}"


def counted(parts: Iterable[Unmeasured]) -> tuple[Unmeasured, ...]:
    """One entry per reason, with the tests of all of them counted together."""
    found: dict[tuple[str, bool], int] = {}
    for one in parts:
        found[one.reason, one.open] = found.get((one.reason, one.open), 0) + one.tests
    return tuple(
        Unmeasured(reason=reason, tests=tests, open=is_open)
        for (reason, is_open), tests in found.items()
    )


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    environment: EnvironmentRecord
    model: ModelRecord
    corpus: CorpusRecord
    settings: Shape
    reference: ReferenceRecord
    floor: NoiseFloor | None
    """What f16 shows against itself; ``None`` before the first cell was measured."""
    cells: tuple[Cell, ...]
    speed: tuple[SpeedCell, ...] = ()
    """Pairs that were timed, in the order of the cells."""
    ceilings: tuple[Ceiling, ...] = ()
    """Pairs whose largest context was searched."""
    unmeasured: tuple[Unmeasured, ...] = ()
    """Why speed tests that ran measured nothing."""
    advice: tuple[Advice, ...] = ()
    """The pair for each workload, from those that did not fail."""
    hardware: Hardware | None = None
    """The machine, where pairs were timed."""
    baselines: BaselinesRecord | None = None
    """Where accepted figures lie; ``None`` where cells are not compared with any."""
    invocation: tuple[str, ...] = ()
    """The options as typed, without those that choose cells and outputs."""
    schema: str = SCHEMA
    decode_seconds: float = 0.0
    """Time that all workers of the quality matrix spent inside ``llama_decode``."""
    seconds: float = 0.0
    """Wall time from the first preparation to the last verdict."""


def encode(result: Result) -> bytes:
    """The result as indented JSON (non-finite numbers as null)."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def schema_text() -> str:
    """The JSON schema of a result, as ``docs/result.schema.json`` holds it."""
    schema = msgspec.json.schema(Result)
    return msgspec.json.format(msgspec.json.encode(schema, order="deterministic")).decode() + "\n"


def decode(data: bytes, name: str) -> Result:
    """Read what :func:`encode` wrote.

    Args:
        name: what to call the data in a complaint.

    Raises:
        ResultError: not a result, or of another version of the schema.
    """
    try:
        result = msgspec.json.decode(data, type=Result)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError(f"{name} is not a result of pytest-kvquant: {error}.") from None
    if result.schema != SCHEMA:
        raise ResultError(f"{name} is of schema '{result.schema}'; this version reads '{SCHEMA}'.")
    return result


def read(path: Path) -> Result:
    """Read a file that ``--kv-json`` wrote.

    Raises:
        ResultError: no such file, or not a result.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}.") from None
    return decode(data, str(path))
