"""What the doctor says on a simulated Mac."""

from __future__ import annotations

import os

import pytest

from metal.conftest import Mac
from metal.test_quality import COMPILER
from pytest_kvquant.cli.doctor_examine import examine
from pytest_kvquant.cli.doctor_report import Report, as_text


def doctor(mac: Mac, pairs: str, **faults: object) -> Report:
    """The doctor's report of a run of some pairs."""
    config = mac.folder / "kvquant.toml"
    variables = mac.variables(**faults)
    lines = "\n".join(f'{name} = """{value}"""' for name, value in variables.items())
    config.write_text(f"[environment]\n{lines}\n", encoding="utf-8")
    typed = {"pairs": pairs, "store": str(mac.folder / "store")}
    return examine(typed, config=config, root=mac.folder, shell=dict(os.environ))


def told(report: Report, name: str) -> list[str]:
    return [finding.text for finding in report.findings if finding.name == name]


def test_a_healthy_mac(mac: Mac) -> None:
    report = doctor(mac, "q8_0/q8_0,f16/q8_0")
    assert report.healthy
    assert told(report, "device")[0].startswith("CPU (")
    assert told(report, "device")[1].startswith("MTL0 (Apple M5 Max), ")
    assert told(report, "device")[2] == "BLAS (Accelerate), helps the CPU, on its memory"
    assert told(report, "kernels") == [
        "a small context on MTL0 decodes: f16/f16, q8_0/q8_0, f16/q8_0",
        "off MTL0, slow and judged off-device: f16/q8_0 (FLASH_ATTN_EXT of f16/q8_0 at head size "
        "128 runs on the CPU in prefill and decode: MTL0 has none for it)",
    ]
    assert list(report.pairs[0].largest_context) == ["CPU", "MTL0"]
    assert "tokens on BLAS" not in as_text(report)


def test_shaders_that_do_not_compile(mac: Mac) -> None:
    report = doctor(mac, "q8_0/q8_0", COMPILE=COMPILER)
    assert not report.healthy
    (text,) = told(report, "kernels")
    assert text == f"f16/f16, q8_0/q8_0 on MTL0: the device's kernels do not compile: {COMPILER}."


def test_a_type_that_cannot_be_written_spoils_no_other(mac: Mac) -> None:
    report = doctor(mac, "q4_0/q4_0,q8_0/q8_0", SET_ROWS="f16 q8_0")
    assert not report.healthy
    failed, healthy = told(report, "kernels")
    assert failed.startswith("q4_0/q4_0 on MTL0: MTL0 has no SET_ROWS for the type of cache_k_l0.")
    assert healthy == "a small context on MTL0 decodes: f16/f16, q8_0/q8_0"


def test_a_mac_whose_build_has_no_metal_computes_on_its_cpu(mac: Mac) -> None:
    """GGML_METAL=OFF: Accelerate stands first, and is no device to measure on."""
    session = mac.session("f16/f16", devices=("CPU",))
    assert session.library.device == "CPU"


@pytest.mark.parametrize("wraps", [0, 1])
def test_memory_is_what_the_machine_has(mac: Mac, wraps: int) -> None:
    """A device that shares the host's memory says 26 GiB free, whatever other programs take."""
    report = doctor(mac, "f16/f16", WORKING_SET=1 << 40, WRAPS=wraps)
    (line,) = [text for text in told(report, "device") if text.startswith("MTL0")]
    free, total = (float(word) for word in line.split("), ")[1].split(" GB")[0].split(" of "))
    assert free < total / 1000
