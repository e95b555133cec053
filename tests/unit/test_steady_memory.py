"""What may stay in memory, and what may not."""

from __future__ import annotations

import pytest

from pytest_kvquant.checks.steady_memory import check_steady
from pytest_kvquant.quality.steady import compute_buffers, kept, moved
from pytest_kvquant.results.memory import SteadyMemory

MIB = 1 << 20


def found(token: float = 0, context: float = 0, compute: float = 300) -> SteadyMemory:
    return SteadyMemory(
        per_token={"host": token}, per_context={"host": context}, compute={"CPU": compute}
    )


@pytest.mark.parametrize(
    ("seen", "verdict", "text"),
    [
        (found(), "pass", "at most 0 KiB stay after a token"),
        (found(token=4096, context=MIB), "pass", "1.0 MiB after a context"),
        (found(token=10 * MIB), "fail", "10.0 MiB stay in the process after every token"),
        (found(context=10 * MIB), "fail", "stay in the process after every context that was freed"),
        (found(compute=700), "fail", "takes 700 MiB, that of f16 300 MiB"),
        (found(compute=100), "fail", "takes 100 MiB, that of f16 300 MiB"),
        (found(compute=330), "pass", "compute buffers: CPU 330 MiB"),
        (SteadyMemory(), "inconclusive", "does not tell"),
    ],
)
def test_what_stays_is_told(seen: SteadyMemory, verdict: str, text: str) -> None:
    check = check_steady(seen, found())
    assert check.verdict == verdict
    assert text in check.text


def test_memory_of_a_gpu_is_named_by_its_device() -> None:
    leaking = SteadyMemory(per_token={"host": 0.0, "CUDA0": 2.0 * MIB})
    assert check_steady(leaking, None).text == "2.0 MiB stay on CUDA0 after every token"


def test_what_others_take_of_a_gpu_is_no_leak() -> None:
    """Seen with fourteen runs on one GPU: every pair was red."""
    shared = SteadyMemory(per_token={"CUDA0": 2.0 * MIB}, elsewhere={"CUDA0": 70.0 * MIB})
    check = check_steady(shared, None)
    assert check.verdict == "inconclusive"
    assert "70.0 MiB on CUDA0 came or went while this process did nothing" in check.text


def test_others_on_a_gpu_hide_no_leak_of_the_process() -> None:
    leaking = SteadyMemory(per_token={"host": 10.0 * MIB}, elsewhere={"CUDA0": 70.0 * MIB})
    assert check_steady(leaking, None).verdict == "fail"


def test_memory_that_moves_while_nothing_is_done_is_of_others() -> None:
    readings = [{"CUDA0": at * MIB, "host": 0} for at in (900, 900, 400, 600)]
    assert moved(readings) == {"CUDA0": 500.0 * MIB}
    assert moved([]) == {}


def test_small_models_may_have_buffers_of_any_size() -> None:
    assert check_steady(found(compute=20), found(compute=4)).verdict == "pass"


def test_an_allocator_that_grows_once_is_no_leak() -> None:
    readings = [{"host": at} for at in (0, -50 * MIB, -50 * MIB, -58 * MIB, -58 * MIB)]
    assert kept(readings, 8) == {"host": 0.0}


def test_a_leak_is_in_every_step() -> None:
    readings = [{"host": -80 * MIB * at} for at in range(5)]
    assert kept(readings, 8) == {"host": 10.0 * MIB}


def test_a_system_that_tells_nothing_tells_nothing() -> None:
    assert kept([{}, {}, {}], 8) == {}


def test_the_last_context_of_a_log_counts() -> None:
    log = "x: CPU compute buffer size = 1.00 MiB\nx: CPU compute buffer size =   17.00 MiB\n"
    assert compute_buffers(log) == {"CPU": 17.0}
