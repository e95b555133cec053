"""The speed part of the result. Samples stand under ``llama-bench``'s names; scripts that read its
JSON read what ``kvquant llama-bench`` makes of them."""

from __future__ import annotations

import statistics
from typing import Literal

import msgspec

from pytest_kvquant.machine.hardware import MachineState

SpeedVerdict = Literal["pass", "fail", "inconclusive", "cliff"]


class SpeedTest(msgspec.Struct, frozen=True, kw_only=True):
    """One test (``pp512 @ d8192``) of one pair, with the rounds that decided it.

    Fields up to ``samples_ts`` are those of ``llama-bench -o json``.
    """

    build_commit: str
    cpu_info: str
    gpu_info: str
    backends: str
    model_filename: str
    model_type: str
    model_size: int
    model_n_params: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    type_k: str
    type_v: str
    n_gpu_layers: int
    flash_attn: bool
    n_prompt: int
    n_gen: int
    n_depth: int
    test_time: str
    avg_ns: int
    stddev_ns: int
    avg_ts: float
    stddev_ts: float
    samples_ns: tuple[int, ...]
    """Nanoseconds of the test; each the mean of ``repeats`` of it."""
    samples_ts: tuple[float, ...]

    reference_ns: tuple[int, ...]
    """The same of f16/f16, in turn with the cell: A B B A."""
    repeats: tuple[int, int]
    """Repetitions that a sample is the mean of: of the cell, of f16."""
    ratios: tuple[float, ...]
    """Speed over that of f16, per round."""
    ratio: float | None
    """Their median; ``None`` where f16 did not fit and the cell was timed without it."""
    floor: float
    """The least ratio allowed."""
    e_below: float
    e_above: float
    """Evidence that the median ratio is under the floor, and over it."""
    verdict: SpeedVerdict
    text: str
    """The verdict in words."""
    declared: bool = False
    """Whether ``[expect]`` says why it is slow: a cliff, or attention off the device."""
    confirmed: bool | None = None
    """Whether a fresh process found the same; ``None`` where none was asked."""
    drop: float = 0.0
    iqr_over_median: float = 0.0
    """How unsteady f16 ran: loss of speed over the series, interquartile range over median."""
    stored_ts: float | None = None
    """tok/s of this pair in the speed baseline of this hardware."""

    @property
    def kind(self) -> str:
        """``pp`` or ``tg``."""
        return "pp" if self.n_prompt else "tg"

    @property
    def median_ts(self) -> float:
        """Median tok/s of the cell."""
        return statistics.median(self.samples_ts)

    @property
    def reference_ts(self) -> float | None:
        """Median tok/s of f16/f16 in the same rounds; ``None`` where it did not fit."""
        tokens = self.n_prompt or self.n_gen
        if not self.reference_ns:
            return None
        return statistics.median(1e9 * tokens / ns for ns in self.reference_ns)

    @property
    def title(self) -> str:
        """As ``llama-bench`` writes it: ``pp512``, ``tg128 @ d8192``."""
        return title(self.kind, self.n_prompt or self.n_gen, self.n_depth)


class SpeedCell(msgspec.Struct, frozen=True, kw_only=True):
    """The speed of one pair over all depths."""

    pair: str
    tests: tuple[SpeedTest, ...] = ()
    method: Literal["interleaved", "bracketed", "alone"] = "interleaved"
    """At the deepest depth: both contexts alive in one process; f16, cell, f16 in a process each;
    or the cell without f16."""
    method_reason: str = ""
    """From which depths on not in turn with f16, and why."""
    rollback: Literal["", "remove", "restore"] = ""
    """How the cache came back to its depth after a sample."""
    prefilled: dict[str, tuple[int, ...]] = {}
    """Tokens decoded to reach all depths, by context, one entry a process."""
    remarks: tuple[str, ...] = ()
    """What the library's log says of slow paths that it took."""
    off_device: str = ""
    """What of the pair runs on the CPU though a GPU holds its cache; empty: nothing."""
    stopped: str = ""
    """Why tests are missing."""
    machine: MachineState = MachineState()
    """Power and heat, as the system told right after the last sample."""
    wall: float = 0.0
    """Seconds, the start of the processes included."""
    library: float = 0.0
    """Seconds inside library calls."""
    verdict: str = "pass"
    """The worst of the tests, or why nothing was measured; ``fail`` where a cliff is gone."""
    gone: tuple[str, ...] = ()
    """Tests (``pp``, ``tg``) of which ``[expect]`` declares a cliff that no depth shows."""
    message: str | None = None
    log: str | None = None

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
