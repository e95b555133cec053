"""Which machine this is, and in what state: what a tok/s figure depends on beside the code.

The parsers take text and give data, so that formats of systems that are not at hand are pinned
by tests. Whatever a system does not tell stays ``None``.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from pytest_kvquant.machine.apple import power
from pytest_kvquant.machine.apple.chip import Chip, performance_cores, read_chip
from pytest_kvquant.machine.apple.commands import PMSET, Run, run
from pytest_kvquant.machine.apple.thermal import thermal_pressure


def is_mac() -> bool:
    """Whether this is macOS, as the platform module says (tests pretend)."""
    return platform.system() == "Darwin"


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """What stays the same from run to run."""

    chip: str
    """What computes: the processor, or the chip with its GPU."""
    cores: int
    """Physical cores."""
    threads: int
    """Logical cores that this process may use."""
    memory: int
    """Bytes."""
    system: str
    """Name and major version of the operating system's kernel."""
    power: str
    """``ac``, ``battery`` or ``unknown``."""
    backends: tuple[str, ...]
    """The device that computes, as the library describes it."""
    gpu_cores: int | None = None
    """macOS: cores of the GPU; chips of one name have 24 or 32."""
    build: str = ""
    """macOS: version and build of the system, whose GPU driver comes with it."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits; equal on machines whose tok/s may be compared."""
        memory = round(self.memory / 2**30)
        parts = [self.chip, self.cores, self.threads, memory, self.system, self.power]
        parts += [one for one in (self.gpu_cores, self.build) if one]
        text = "\n".join(map(str, [*parts, *self.backends]))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """For people."""
        beside = "".join(f", {name}" for name in self.backends if name != self.chip)
        gpu = f", {self.gpu_cores} GPU cores" if self.gpu_cores else ""
        return (
            f"{self.chip}, {self.cores} cores{gpu}, {self.memory / 2**30:.0f} GiB, "
            f"{f'macOS {self.build}' if self.build else self.system}, power: {self.power}{beside}"
        )


class MachineState(msgspec.Struct, frozen=True, kw_only=True):
    """What changes while a machine works."""

    low_power: bool | None = None
    """macOS: low-power mode."""
    thermal: str | None = None
    """macOS: thermal pressure, ``nominal``, ``moderate``, ``heavy``, ``trapping``, ``sleeping``."""
    speed_limit: int | None = None
    """Intel Macs: percent of full CPU speed that heat allows; 100 where none was recorded. Apple
    silicon records none, ever."""
    warnings: tuple[str, ...] = ()
    """macOS: recorded thermal and performance warnings."""
    governors: tuple[str, ...] = ()
    """Linux: cpufreq governors in use."""
    frequency: tuple[float, float] | None = None
    """Linux: mean current and mean highest frequency of the cores, MHz."""
    zones: dict[str, float] = {}
    """Linux: thermal zones, °C; the hottest of each type."""

    @property
    def throttled(self) -> bool:
        """Whether the system says that it holds the machine back."""
        limited = self.speed_limit is not None and self.speed_limit < 100
        hot = self.thermal not in (None, "nominal")
        return bool(self.low_power) or limited or hot or bool(self.warnings)


@functools.cache
def _cpu_info() -> Mapping[str, object]:
    """Asked once: it starts programs, and takes a quarter of a second. Never of a Mac, whose own
    answer it does not know: ``sysctl machdep.cpu`` as a whole fails on Apple silicon."""
    import cpuinfo

    found: Mapping[str, object] = cpuinfo.get_cpu_info()
    return found


def cpu_name(unknown: str) -> str:
    """The CPU's own name, or ``unknown`` where it tells none."""
    if is_mac():
        return _chip().name or unknown
    return _brand() or str(_cpu_info().get("brand_raw", unknown))


@functools.cache
def _brand() -> str | None:
    """What Linux tells; ``None`` elsewhere, and of ARM."""
    with suppress(OSError):
        return model_name(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    return None


def model_name(text: str) -> str | None:
    """The processor's own name in Linux's ``/proc/cpuinfo``; those of ARM are not told there.

    >>> model_name("processor : 0\\nmodel name\\t: AMD EPYC 7B13\\n")
    'AMD EPYC 7B13'
    """
    found = re.search(r"^model name\s*:\s*(\S.*?)\s*$", text, re.MULTILINE)
    return found[1] if found else None


@functools.cache
def _chip() -> Chip:
    """Asked once: of a Mac only."""
    return read_chip()


def default_threads() -> int:
    """Threads that llama.cpp takes by itself: the fast cores of a Mac, else the physical ones."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if is_mac():
        physical = performance_cores() or physical
    return min(physical, usable) if usable else physical


def describe(chip: str, backends: Sequence[str]) -> Hardware:
    """This machine.

    Args:
        chip: the CPU's own name.
        backends: descriptions of the library's devices.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    own = _chip() if is_mac() else Chip()
    return Hardware(
        chip=chip,
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        threads=len(affinity(0)) if affinity else os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release().split('.')[0]}",
        power=power_source(),
        backends=tuple(backends),
        gpu_cores=own.gpu_cores,
        build=own.system,
    )


def power_source() -> str:
    """``ac``, ``battery`` or ``unknown``."""
    if is_mac():
        return power.power_source()
    battery = psutil.sensors_battery()
    if battery is None or battery.power_plugged is None:
        return "unknown"
    return "ac" if battery.power_plugged else "battery"


def machine_state() -> MachineState:
    """How this machine is doing, as far as its system tells."""
    if is_mac():
        return mac_state()
    return linux_state(Path("/sys"))


def mac_state(
    ask: Run = run, pressure: Callable[[], str | None] = thermal_pressure
) -> MachineState:
    """How a Mac is doing.

    Args:
        ask: runs a command.
        pressure: asks for the thermal pressure.
    """
    level = pressure()
    limit, warnings = parse_thermal(ask(PMSET, "-g", "therm"))
    if level is not None and limit == 100:  # nothing was recorded, as always on Apple silicon
        limit = None
    return MachineState(
        low_power=power.low_power(ask), thermal=level, speed_limit=limit, warnings=warnings
    )


def parse_thermal(text: str) -> tuple[int | None, tuple[str, ...]]:
    """Read ``pmset -g therm``: percent of full speed, and recorded warnings.

    The limits are printed only once there has been one; ``Note: No … has been recorded`` stands
    for full speed. Nothing at all means that the system does not tell.
    """
    limits = [int(value) for value in re.findall(r"CPU_Speed_Limit\s*=\s*(\d+)", text)]
    nothing = len(re.findall(r"No (?:thermal|performance|CPU power).* recorded", text))
    warnings = tuple(
        " ".join(line.split())
        for line in text.splitlines()
        if re.search(r"(thermal|performance) warning level", line, re.IGNORECASE)
        and not re.search(r"\bNo (thermal|performance)\b", line)
        and not re.search(r"[:=]\s*0\s*$", line)
    )
    if limits:
        return limits[-1], warnings
    return (100 if nothing and not warnings else None), warnings


def linux_state(root: Path) -> MachineState:
    """Read cpufreq and the thermal zones below ``root`` (``/sys``)."""
    cores = sorted(root.glob("devices/system/cpu/cpu[0-9]*/cpufreq"))
    governors = dict.fromkeys(filter(None, (_text(core / "scaling_governor") for core in cores)))
    current = [kHz for core in cores if (kHz := _number(core / "scaling_cur_freq"))]
    highest = [kHz for core in cores if (kHz := _number(core / "cpuinfo_max_freq"))]
    zones: dict[str, float] = {}
    for zone in sorted(root.glob("class/thermal/thermal_zone*")):
        name, heat = _text(zone / "type"), _number(zone / "temp")
        if name and heat is not None:
            zones[name] = max(zones.get(name, -273.15), heat / 1000)
    frequency = None
    if current and highest:
        frequency = sum(current) / len(current) / 1000, sum(highest) / len(highest) / 1000
    return MachineState(governors=tuple(governors), frequency=frequency, zones=zones)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
