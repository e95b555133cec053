"""The speed part of the result. Samples stand under ``llama-bench``'s names; scripts that read its
JSON read what ``kvquant llama-bench`` makes of them."""

from __future__ import annotations

import statistics
from typing import Literal

import msgspec

from pytest_kvquant.machine.hardware import MachineState

SpeedVerdict = Literal["pass", "fail", "inconclusive", "cliff"]

LLAMA_BENCH = ("pp", "tg")
"""Tests that ``llama-bench`` has: the only ones that its JSON can hold."""


class RoofShare(msgspec.Struct, frozen=True, kw_only=True):
    """How near a speed comes to what the machine permits, as measured in the same run.

    Information: nothing is judged by it. A share can pass 1, where kernels of integers multiply
    faster than the products of floats that were measured.
    """

    by: Literal["bandwidth", "operations"]
    """What bounds the test: reading weights and cache, or multiplying."""
    rate: float
    """Measured on this machine: bytes a second, or operations a second."""
    amount: float
    """Bytes of weights and cache that a token reads, or operations of a token."""
    ts: float
    """The most tok/s that follow: rate over amount."""
    share: float
    """Median tok/s of the cell over these."""
    reference_share: float | None = None
    """The same of f16/f16, over what it may reach itself; ``None`` where it was not timed."""
    stored_rate: float | None = None
    """The rate in the speed baseline of this hardware; ``None``: none is stored."""


class SpeedTest(msgspec.Struct, frozen=True, kw_only=True):
    """One test (``pp512 @ d8192``) of one pair, with the rounds that decided it.

    Fields up to ``samples_ts`` are those of ``llama-bench -o json``.
    """

    build_commit: str
    """Commit of the build."""
    cpu_info: str
    """The processor's name."""
    gpu_info: str
    """Names of the GPUs."""
    backends: str
    """Backends in use, comma-separated."""
    model_filename: str
    """Path of the model."""
    model_type: str
    """As llama.cpp describes it."""
    model_size: int
    """Bytes of the weights."""
    model_n_params: int
    """Parameters."""
    n_batch: int
    """Logical batch, tokens."""
    n_ubatch: int
    """Physical batch, tokens."""
    n_threads: int
    """CPU threads."""
    type_k: str
    """ggml name of K's type."""
    type_v: str
    """ggml name of V's type."""
    n_gpu_layers: int
    """Layers offloaded."""
    flash_attn: bool
    """Whether flash attention was on."""
    n_prompt: int
    """Tokens of a prefill test; 0 for a decode test."""
    n_gen: int
    """Tokens of a decode test; 0 for a prefill test."""
    n_depth: int
    """Tokens in the cache before the test."""
    test_time: str
    """When it was taken, UTC, ISO 8601."""
    avg_ns: int
    """Mean of the samples, nanoseconds per test."""
    stddev_ns: int
    """Their standard deviation, nanoseconds."""
    avg_ts: float
    """Mean speed, tok/s."""
    stddev_ts: float
    """Its standard deviation, tok/s."""
    samples_ns: tuple[int, ...]
    """Nanoseconds of the test; each the mean of ``repeats`` of it, or a part counted up to it."""
    samples_ts: tuple[float, ...]
    """Speed of each sample, tok/s."""

    name: str = ""
    """Of a test that ``llama-bench`` has not, whose tokens are ``n_gen``; empty: it has it."""
    reference_ns: tuple[int, ...]
    """The same of f16/f16, in turn with the cell: A B B A."""
    repeats: tuple[int, int]
    """Repetitions that a sample is the mean of: of the cell, of f16."""
    parts: int = 1
    """That a test much longer than a sample was taken in, one after another, a sample each."""
    ratios: tuple[float, ...]
    """Speed over that of f16, per round."""
    ratio: float | None
    """Their median; ``None`` where f16 did not fit and the cell was timed without it."""
    floor: float
    """The least ratio allowed."""
    e_below: float
    """E-value that the ratio is under the floor."""
    e_above: float
    """Evidence that the median ratio is under the floor, and over it."""
    verdict: SpeedVerdict
    """`pass`, `fail`, `inconclusive` or `cliff`."""
    text: str
    """The verdict in words."""
    declared: bool = False
    """Whether ``[expect]`` says why it is slow: a cliff, or attention off the device."""
    confirmed: bool | None = None
    """Whether a fresh process found the same; ``None`` where none was asked."""
    drop: float = 0.0
    """Total drop of f16's speed over the series, as a share of it (Theil-Sen)."""
    iqr_over_median: float = 0.0
    """How unsteady f16 ran: loss of speed over the series, interquartile range over median."""
    by_depth: tuple[tuple[float, ...], ...] = ()
    """Depth, and nanoseconds of a token of the cell and of f16 there, on the way up; empty where
    the by_depth was short, or could not be timed."""
    stored_ts: float | None = None
    """tok/s of this pair in the speed baseline of this hardware."""
    roof: RoofShare | None = None
    """How near it comes to what the machine permits; ``None``: not known, or not asked for."""

    @property
    def kind(self) -> str:
        """Its name: ``pp``, ``tg``, or another test's."""
        return self.name or ("pp" if self.n_prompt else "tg")

    @property
    def tokens(self) -> int:
        """Of one test."""
        return self.n_prompt or self.n_gen

    @property
    def median_ts(self) -> float:
        """Median tok/s of the cell."""
        return statistics.median(self.samples_ts)

    @property
    def reference_ts(self) -> float | None:
        """Median tok/s of f16/f16 in the same rounds; ``None`` where it did not fit."""
        if not self.reference_ns:
            return None
        return statistics.median(1e9 * self.tokens / ns for ns in self.reference_ns)

    @property
    def title(self) -> str:
        """As ``llama-bench`` writes it: ``pp512``, ``tg128 @ d8192``."""
        return title(self.kind, self.tokens, self.n_depth)


class SpeedCell(msgspec.Struct, frozen=True, kw_only=True):
    """The speed of one pair over all depths."""

    pair: str
    """As `K/V`."""
    tests: tuple[SpeedTest, ...] = ()
    """By kind and depth, in the order taken."""
    method: Literal["interleaved", "bracketed", "alone"] = "interleaved"
    """At the deepest depth: both contexts alive in one process; f16, cell, f16 in a process each;
    or the cell without f16."""
    method_reason: str = ""
    """From which depths on not in turn with f16, and why."""
    rollback: Literal["", "remove", "restore"] = ""
    """How the cache came back to its depth after a sample."""
    prefilled: dict[str, tuple[int, ...]] = {}
    """Tokens decoded to reach all depths, by context, one entry a process."""
    beside: tuple[str, ...] = ()
    """Pairs that were timed in the same process, against the same samples of f16."""
    remarks: tuple[str, ...] = ()
    """What the library's log says of slow paths that it took."""
    off_device: str = ""
    """What of the pair runs on the CPU though a GPU holds its cache; empty: nothing."""
    stopped: str = ""
    """Why tests are missing."""
    machine: MachineState = MachineState()
    """Power and heat, as the system told right after the last sample."""
    wall: float = 0.0
    """Seconds, the start of the processes included; its share where others were timed in the same
    process."""
    library: float = 0.0
    """Seconds inside library calls, its share where others were timed in the same process."""
    verdict: str = "pass"
    """The worst of the tests, or why nothing was measured; ``fail`` where a cliff is gone."""
    gone: tuple[str, ...] = ()
    """Names of tests of which ``[expect]`` declares a cliff that no depth shows."""
    message: str | None = None
    """What happened, where it could not be timed."""
    log: str | None = None
    """The end of the library's log, where it could not be timed."""

    def gone_text(self, kind: str) -> str:
        """That a declared cliff is gone, in words."""
        deepest = [test.text for test in self.tests if test.kind == kind][-1]
        return (
            f"[expect] declares a {kind} cliff, but there is none at any depth ({deepest}). "
            "If it was fixed, remove the entry; if it shows only at depths that this run does not "
            f'visit, declare it there: "{self.pair} @ dN".'
        )


def title(kind: str, count: int, depth: int) -> str:
    """A test as ``llama-bench`` writes it.

    >>> title("pp", 512, 0), title("tg", 128, 65536)
    ('pp512', 'tg128 @ d65536')
    """
    return f"{kind}{count} @ d{depth}" if depth else f"{kind}{count}"
