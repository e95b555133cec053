"""Machines that are not at hand, by what their own programs print."""

from __future__ import annotations

import sys
from pathlib import Path

import cpuinfo
import msgspec
import pytest

from pytest_kvquant.machine import hardware
from pytest_kvquant.machine.apple import power
from pytest_kvquant.machine.apple.chip import Chip
from pytest_kvquant.machine.hardware import Hardware, MachineState

NOTES = """Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
Note: No CPU power status has been recorded
"""
THROTTLED = """Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
2020-11-24 13:10:40 +0100 CPU Power notify
\tCPU_Scheduler_Limit \t= 100
\tCPU_Available_CPUs \t= 8
\tCPU_Speed_Limit \t= 35
"""
BATTERY = """Now drawing from 'Battery Power'
 -InternalBattery-0 (id=24313955)\t27%; discharging; 3:32 remaining present: true
"""
MAC_MINI = """Now drawing from 'AC Power'
"""
IN_USE = """System-wide power settings:
Currently in use:
 standby              1
 Sleep On Power Button 1
 hibernatefile        /var/vm/sleepimage
 powernap             1
 networkoversleep     0
 disksleep            10
 sleep                1 (sleep prevented by powerd)
 hibernatemode        3
 ttyskeepawake        1
 displaysleep         10
 tcpkeepalive         1
 lowpowermode         0
 womp                 0
"""


def test_thermal_state_of_a_mac() -> None:
    assert hardware.parse_thermal(NOTES) == (100, ())
    assert hardware.parse_thermal(THROTTLED) == (35, ())
    assert hardware.parse_thermal("") == (None, ())
    warned = "Thermal Warning Level = 2\nNote: No performance warning level has been recorded\n"
    assert hardware.parse_thermal(warned) == (None, ("Thermal Warning Level = 2",))
    assert hardware.parse_thermal("Thermal Warning Level = 0\n")[1] == ()


def test_power_of_a_mac() -> None:
    assert power.parse_power_source(BATTERY) == "battery"
    assert power.parse_power_source(MAC_MINI) == "ac"
    assert power.parse_power_source("Now drawing from 'UPS Power'") == "battery"
    assert power.parse_power_source("") == "unknown"


def test_low_power_mode_of_a_mac() -> None:
    assert power.parse_low_power(IN_USE) is False
    assert power.parse_low_power(IN_USE.replace("lowpowermode         0", "lowpowermode 1"))
    three_modes = IN_USE.replace("lowpowermode         0", "powermode            2")
    assert power.parse_low_power(three_modes) is False
    assert power.parse_low_power("sleep 1") is None


@pytest.mark.parametrize(
    ("state", "throttled"),
    [
        (MachineState(), False),
        (MachineState(low_power=False, speed_limit=100), False),
        (MachineState(low_power=True), True),
        (MachineState(speed_limit=62), True),
        (MachineState(warnings=("Thermal Warning Level = 1",)), True),
    ],
)
def test_who_is_held_back(state: MachineState, throttled: bool) -> None:
    assert state.throttled is throttled


def test_linux(tmp_path: Path) -> None:
    for core, current in ((0, "1200000"), (1, "3600000")):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text("powersave\n")
        (folder / "scaling_cur_freq").write_text(f"{current}\n")
        (folder / "cpuinfo_max_freq").write_text("4800000\n")
    for number, (kind, heat) in enumerate((("x86_pkg_temp", "71000"), ("acpitz", "-1"))):
        zone = tmp_path / f"class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{kind}\n")
        (zone / "temp").write_text(f"{heat}\n")
    broken = tmp_path / "class/thermal/thermal_zone9"
    broken.mkdir()
    (broken / "type").write_text("iwlwifi_1\n")
    found = hardware.linux_state(tmp_path)
    assert found.governors == ("powersave",)
    assert found.frequency == (2400.0, 4800.0)
    assert found.zones == {"x86_pkg_temp": 71.0, "acpitz": -0.001}
    assert hardware.linux_state(tmp_path / "nothing") == MachineState()


def test_the_fingerprint_changes_with_everything_that_speed_depends_on() -> None:
    mac = Hardware(
        chip="Apple M5 Max", cores=16, threads=16, memory=128 << 30, system="Darwin 25",
        power="ac", backends=("Apple M5 Max",),
    )  # fmt: skip
    changes = (
        {"chip": "Apple M4 Max"}, {"cores": 14}, {"threads": 8}, {"memory": 64 << 30},
        {"system": "Darwin 26"}, {"power": "battery"}, {"backends": ("CPU",)},
        {"gpu_cores": 32}, {"build": "26.4.1 (25E253)"},
    )  # fmt: skip
    prints = {msgspec.structs.replace(mac, **change).fingerprint for change in changes}
    assert len(prints) == len(changes)
    assert mac.fingerprint not in prints
    assert msgspec.structs.replace(mac, memory=(128 << 30) - 4096).fingerprint == mac.fingerprint


def test_this_machine_describes_itself() -> None:
    here = hardware.describe("some CPU", ["CPU"])
    assert here.cores >= 1
    assert here.power in ("ac", "battery", "unknown")
    assert here == hardware.describe("some CPU", ["CPU"])
    hardware.machine_state()


def test_heat_of_apple_silicon_is_its_thermal_pressure() -> None:
    """pmset would say "never throttled" for ever: it records nothing there."""

    def ask(*words: str) -> str:
        return {("-g", "therm"): NOTES, ("-g",): IN_USE}.get(words[1:], "")

    hot = hardware.mac_state(ask, lambda: "heavy")
    assert (hot.thermal, hot.speed_limit, hot.low_power) == ("heavy", None, False)
    assert hot.throttled
    assert not hardware.mac_state(ask, lambda: "nominal").throttled
    intel = hardware.mac_state(ask, lambda: None)
    assert (intel.thermal, intel.speed_limit) == (None, 100)


@pytest.mark.parametrize(("fast", "threads"), [(6, 6), (None, 10)])
def test_threads_are_the_fast_cores_of_a_mac(
    monkeypatch: pytest.MonkeyPatch, fast: int | None, threads: int
) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr(hardware, "is_mac", lambda: True)
    monkeypatch.setattr(hardware, "performance_cores", lambda: fast)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 10)
    assert hardware.default_threads() == threads


def test_a_mac_is_named_with_its_gpu_cores_and_build(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Chip("Apple M1 Max", 10, 8, 2, 32, "26.4.1 (25E253)")
    monkeypatch.setattr(hardware, "is_mac", lambda: True)
    monkeypatch.setattr(hardware, "_chip", lambda: own)
    here = hardware.describe(hardware.cpu_name("unknown"), ["Apple M1 Max (MTL)"])
    assert here.chip == "Apple M1 Max"
    assert ", 32 GPU cores," in here.name
    assert "macOS 26.4.1 (25E253)" in here.name


def test_the_name_of_a_linux_processor_is_what_the_library_says() -> None:
    text = "vendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+ \nflags : a\n"
    assert hardware.model_name(text) == "Intel(R) Xeon(R) Platinum 8480+"
    assert hardware.model_name("BogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n") is None
    if sys.platform == "linux":
        assert hardware.cpu_name("?") == cpuinfo.get_cpu_info().get("brand_raw", "?")
