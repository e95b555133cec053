"""What a Mac's own tools print, as real Macs printed it, read as data."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvquant.machine.apple import chip, memory, power, thermal

RECORDED = Path(__file__).parents[1] / "recorded" / "apple"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text(encoding="utf-8")


def replies(**texts: str) -> Callable[..., str]:
    """A stand-in for running commands: the text of the first word's file name."""

    def run(*words: str) -> str:
        return texts.get(Path(words[0]).name, "")

    return run


class TestChip:
    def test_name_cores_and_gpu_of_apple_silicon(self) -> None:
        found = chip.read_chip(
            replies(sysctl=recorded("sysctl_m1_pro.txt"), ioreg=recorded("ioreg_m3_pro.txt"))
        )
        assert (found.name, found.gpu_cores) == ("Apple M1 Pro", 14)
        assert (found.cores, found.performance_cores, found.efficiency_cores) == (8, 6, 2)

    def test_the_profiler_is_asked_where_the_registry_is_silent(self) -> None:
        found = chip.read_chip(replies(system_profiler=recorded("profiler_m2_max.json")))
        assert (found.name, found.gpu_cores) == ("Apple M2 Max", 30)

    def test_an_intel_mac_has_no_gpu_cores(self) -> None:
        assert chip.parse_profiler(recorded("profiler_intel.json")) == (
            "AMD Radeon Pro 5500M",
            None,
        )

    def test_the_build_is_part_of_the_system(self) -> None:
        text = "kern.osproductversion: 26.4.1\nkern.osversion: 25E253\n"
        assert chip.read_chip(replies(sysctl=text)).system == "26.4.1 (25E253)"

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"SPDisplaysDataType": null}', "nonsense"])
    def test_what_is_not_told_stays_unknown(self, text: str) -> None:
        assert chip.read_chip(replies(system_profiler=text)) == chip.Chip()

    def test_threads_are_those_of_the_fast_cores(self) -> None:
        ask = replies(sysctl=recorded("sysctl_m1_pro.txt"))
        assert chip.performance_cores(ask) == 6
        assert chip.performance_cores(replies(sysctl="hw.physicalcpu: 6\n")) is None


class TestPower:
    def test_source(self) -> None:
        assert power.power_source(replies(pmset=recorded("pmset_batt_ac.txt"))) == "ac"
        assert power.power_source(replies(pmset=recorded("pmset_batt.txt"))) == "battery"
        assert power.power_source(replies()) == "unknown"

    def test_low_power_mode(self) -> None:
        text = recorded("pmset.txt")
        assert power.low_power(replies(pmset=text)) is False
        saving = text.replace("lowpowermode         0", "lowpowermode         1")
        assert power.low_power(replies(pmset=saving)) is True
        assert power.low_power(replies()) is None

    def test_the_machine_is_kept_awake_for_as_long_as_this_process(self, tmp_path: Path) -> None:
        program, told = tmp_path / "caffeinate", tmp_path / "told"
        program.write_text(f'#!/bin/sh\necho "$@" $$ > {told}\nexec sleep 60\n', encoding="ascii")
        program.chmod(0o755)
        with power.awake(str(program), wanted=True) as held:
            assert held
            for _ in range(200):
                if told.exists() and told.read_text(encoding="ascii").endswith("\n"):
                    break
                time.sleep(0.05)
            *words, number = told.read_text(encoding="ascii").split()
            assert words == ["-i", "-w", str(os.getpid())]
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)

    def test_without_caffeinate_nothing_is_held(self, tmp_path: Path) -> None:
        with power.awake(str(tmp_path / "none"), wanted=True) as held:
            assert not held


class TestMemory:
    def test_what_is_left_before_it_swaps(self) -> None:
        found = memory.read_memory(
            replies(
                vm_stat=recorded("vm_stat.txt"),
                sysctl=recorded("swapusage.txt") + "kern.memorystatus_vm_pressure_level: 2\n",
            )
        )
        assert found.available == (64712 + 468696 + 22116) * 16384
        assert found.swapped_out == 4209984 * 16384
        assert found.compressed == 678569 * 16384
        assert found.swap_used == round(4259.25 * 2**20)
        assert found.pressure == "warning"

    def test_a_page_size_is_read_and_not_assumed(self) -> None:
        text = recorded("vm_stat.txt").replace("16384", "4096")
        assert memory.parse_vm_stat(text).swapped_out == 4209984 * 4096

    def test_nothing_told_is_nothing_known(self) -> None:
        assert memory.read_memory(replies()) == memory.Memory()


class TestThermal:
    def test_the_level_of_a_notification(self) -> None:
        told: list[str] = []
        assert thermal.thermal_pressure(_notify(told, state=2)) == "heavy"
        assert told == ["register", "get", "cancel"]

    def test_a_failure_gives_the_token_back(self) -> None:
        told: list[str] = []
        assert thermal.thermal_pressure(_notify(told, state=2, status=1)) is None
        assert told == ["register", "get", "cancel"]

    @pytest.mark.skipif(sys.platform == "darwin", reason="a Mac tells its level")
    def test_other_systems_do_not_tell(self) -> None:
        assert thermal.thermal_pressure() is None


class _Function:
    """As ctypes has them: callable, with attributes that can be set."""

    def __init__(self, call: Callable[..., int]) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> int:
        return self._call(*arguments)


def _notify(told: list[str], *, state: int, status: int = 0) -> object:
    """The functions of ``notify.h``, whose get fails with ``status``."""

    def register(name: bytes, _token: object) -> int:
        assert name == b"com.apple.system.thermalpressurelevel"
        told.append("register")
        return 0

    def get(_token: object, place: object) -> int:
        told.append("get")
        ctypes.cast(place, ctypes.POINTER(ctypes.c_uint64))[0] = state
        return status

    def cancel(_token: object) -> int:
        told.append("cancel")
        return 0

    class Library:
        notify_register_check = _Function(register)
        notify_get_state = _Function(get)
        notify_cancel = _Function(cancel)

    return Library()


def test_a_command_that_hangs_or_is_not_there_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_kvquant.machine.apple import commands

    monkeypatch.setattr(commands, "PATIENCE", 0.1)
    assert commands.run("/nowhere/sysctl", "hw.ncpu") == ""
    assert commands.run("sleep", "5") == ""
    assert commands.run("sh", "-c", "echo a: 1; exit 1") == "a: 1\n"
