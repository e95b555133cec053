"""Who else uses the machine is told, and a quiet machine disturbs nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_kvquant.machine import company
from pytest_kvquant.machine.company import Company, Look, look_at_cpu


def looks(*seen: Look) -> Callable[[], Look]:
    left = list(seen)
    return lambda: left.pop(0)


@pytest.mark.parametrize(
    ("after", "cores", "told"),
    [
        (Look(10, busy=20, own=20, stolen=0), 2, ""),
        (Look(10, busy=20, own=18, stolen=0), 2, ""),
        (Look(10, busy=20, own=10, stolen=0), 2, "other programs took 1.0 cores"),
        (Look(10, busy=30, own=20, stolen=0), 4, ""),
        (Look(10, busy=50, own=20, stolen=0), 4, "other programs took 3.0 cores"),
        (Look(10, busy=20, own=20, stolen=2), 2, "the hypervisor took 20%"),
    ],
)  # fmt: skip
def test_others_on_the_cores_that_samples_need(after: Look, cores: int, told: str) -> None:
    watch = Company(2, look=looks(Look(0, 0, 0, 0), after), cores=cores)
    assert watch.told().startswith(told)
    assert bool(told) == bool(Company(2, look=looks(Look(0, 0, 0, 0), after), cores=cores).told())


def test_what_a_system_does_not_tell_disturbs_nothing() -> None:
    assert Company(2, look=lambda: None, cores=2).told() == ""


def test_the_time_of_this_machine_grows() -> None:
    first, second = look_at_cpu(), look_at_cpu()
    assert first is not None
    assert second is not None
    assert second.busy >= first.busy
    assert second.own >= first.own > 0


class Error(Exception):
    pass


def nvml(*processes: tuple[int, int], fails: bool = False) -> Any:
    def utilization(_device: object, _since: int) -> list[SimpleNamespace]:
        if fails:
            raise Error
        return [SimpleNamespace(pid=pid, smUtil=share) for pid, share in processes]

    return SimpleNamespace(
        NVMLError=Error, nvmlInit=lambda: None, nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1, nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetProcessUtilization=utilization,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (nvml(), ""),
        (nvml(fails=True), ""),
        (nvml((1, 90)), ""),
        (nvml((1, 90), (2, 60)), "other programs used 60% of GPU 0 meanwhile"),
        (nvml((1, 90), (2, 5)), ""),
        (nvml((70, 90), (71, 80)), "other programs used 80% of GPU 0 meanwhile"),
        (nvml((70, 90)), ""),
        (None, ""),
    ],
    ids=["idle", "not told", "own", "another", "hardly", "in a container", "alone there", "none"],
)  # fmt: skip
def test_others_on_an_nvidia_gpu(seen: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "_own_processes", lambda: [1])
    monkeypatch.setattr(company, "_nvml", lambda: seen)
    assert company.others_on_gpus(lambda *_words: "") == told


@pytest.mark.parametrize(("share", "told"), [(3, ""), (37, "other programs used 37% of the GPU")])
def test_others_on_the_gpu_of_a_mac(share: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "_nvml", lambda: None)
    text = f'"PerformanceStatistics" = {{"Device Utilization %"={share},"Alloc system memory"=1}}'
    assert company.others_on_gpus(lambda *_words: text).startswith(told)


def test_a_gpu_that_is_busy_disturbs(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = looks(*[Look(at, at, at, 0) for at in range(4)])
    assert "GPU" in Company(1, gpu=True, look=quiet, cores=8, gpus=lambda: "GPU 0").told()
    assert Company(1, gpu=False, look=quiet, cores=8, gpus=lambda: "GPU 0").told() == ""
