"""Who else works on this machine while something is timed.

Another program on the device takes more from the faster of two kernels: ratios rise, and a floor
that fails on a quiet machine passes on a busy one. Looked at before and after a series of samples,
when our own workers are idle: the CPU time that others took (and a hypervisor stole), the processes
that NVIDIA's management library sees at work, the utilization that macOS tells of its GPU. What a
system does not tell is not known, and disturbs nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

import psutil

from pytest_kvquant.machine.apple.commands import IOREG, Run, run

CORES = 0.3
"""Cores that others may take of those that the samples need: a thread that waits for its core holds
all others up."""

STOLEN = 0.05
"""Share of the time that a hypervisor may take."""

GPU = 0.10
"""Utilization of the GPU by others, 0..1."""

BUSY = ("user", "nice", "system", "irq", "softirq")
"""Accounts of the CPU that are work."""


class Look(NamedTuple):
    """The machine at one moment; core-seconds since it was started."""

    at: float
    """Seconds."""
    busy: float
    """Of all programs."""
    own: float
    """Of this process, its workers and those that have ended."""
    stolen: float
    """By the hypervisor."""


class Company:
    """Watches who else is at work.

    Args:
        threads: CPU threads of the samples.
        gpu: whether a GPU computes them.
        look, cores, gpus: of this machine; tests give their own.
    """

    def __init__(
        self,
        threads: int,
        *,
        gpu: bool = False,
        look: Callable[[], Look | None] | None = None,
        cores: int | None = None,
        gpus: Callable[[], str] | None = None,
    ) -> None:
        self._look = look or look_at_cpu
        self._spare = max(0, (cores or psutil.cpu_count() or threads) - threads)
        self._gpus = (gpus or others_on_gpus) if gpu else str
        self._first = self._look()
        self._seen = self._gpus()

    def told(self) -> str:
        """Who disturbed what was timed since the beginning, in words; empty: nobody."""
        first, now = self._first, self._look()
        if self._seen or (told := self._gpus()):
            return self._seen or told
        if first is None or now is None or now.at <= first.at:
            return ""
        elapsed = now.at - first.at
        others = (now.busy - first.busy - (now.own - first.own)) / elapsed
        stolen = (now.stolen - first.stolen) / elapsed
        if others > self._spare + CORES:
            return f"other programs took {others:.1f} cores of the CPU meanwhile"
        if stolen > STOLEN:
            return f"the hypervisor took {stolen:.0%} of a core meanwhile"
        return ""


def look_at_cpu() -> Look | None:
    """Times of the CPU; ``None`` where the system does not tell them."""
    try:
        times, me = psutil.cpu_times(), psutil.Process()
        busy = sum(getattr(times, name, 0.0) for name in BUSY)
        own = _spent(me) + sum(_spent(child) for child in me.children(recursive=True))
    except (psutil.Error, OSError):
        return None
    return Look(time.monotonic(), busy, own, getattr(times, "steal", 0.0))


def _spent(process: psutil.Process) -> float:
    """Core-seconds of a process and of its children that have ended."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.Error:  # it has ended meanwhile
        return 0.0


def others_on_gpus(ask: Run = run) -> str:
    """Who else computes on a GPU of this machine, in words; empty: nobody, or nobody tells."""
    return _nvidia(_nvml()) or _apple(ask(IOREG, "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator"))


def _nvml() -> ModuleType | None:
    """NVIDIA's management library, where its package (``nvidia-ml-py``) is installed."""
    try:
        import pynvml
    except ImportError:
        return None
    found: ModuleType = pynvml
    return found


def _nvidia(nvml: ModuleType | None) -> str:
    if nvml is None:
        return ""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ""
    try:
        for number in range(nvml.nvmlDeviceGetCount()):
            if told := _at_work(nvml, number, _own_processes()):
                return told
    finally:
        nvml.nvmlShutdown()
    return ""


def _at_work(nvml: ModuleType, number: int, own: Sequence[int]) -> str:
    """Who computes on one GPU beside these processes."""
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        since = int((time.time() - 1) * 1e6)
        seen = nvml.nvmlDeviceGetProcessUtilization(device, since)
    except nvml.NVMLError:  # nothing was at work, or this card or driver does not tell
        return ""
    busy = {one.pid: one.smUtil / 100 for one in seen if one.smUtil / 100 > GPU}
    others = {pid: share for pid, share in busy.items() if pid not in own}
    if len(others) == len(seen) and others:  # in a container, processes have other numbers
        others.pop(max(others, key=lambda pid: others[pid]))
    if not others:
        return ""
    return f"other programs used {sum(others.values()):.0%} of GPU {number} meanwhile"


def _own_processes() -> list[int]:
    me = psutil.Process()
    try:
        return [me.pid, *(child.pid for child in me.children(recursive=True))]
    except psutil.Error:
        return [me.pid]


def _apple(text: str) -> str:
    """Read ``ioreg`` of an idle moment: ``"Device Utilization %"=37``."""
    shares = [int(one) / 100 for one in re.findall(r'"Device Utilization %"\s*=\s*(\d+)', text)]
    if max(shares, default=0.0) <= GPU:
        return ""
    return f"other programs used {max(shares):.0%} of the GPU meanwhile"
