"""A device's f16 judged by that of the CPU."""

from __future__ import annotations

from metal.conftest import Mac


def test_f16_of_the_device_against_f16_of_the_cpu(mac: Mac) -> None:
    session = mac.session("f16/f16 q8_0/q8_0", reference_devices=("CPU",))
    assert session.library.device == "MTL0"
    assert session.ready.reference_library.device == "CPU"
    for pair in session.pairs:
        session.measure(pair)
    cells = {cell.pair: cell for cell in session.result().cells}
    assert cells["f16/f16"].verdict == "pass"
    assert cells["f16/f16"].quality is not None
    assert cells["f16/f16"].quality.prefill.kl_mean < 1e-6
    result = session.result()
    assert result.reference.library is not None
    assert result.reference.library.device == "CPU"


def test_an_f16_kernel_of_the_device_that_is_wrong_is_seen(mac: Mac) -> None:
    """Against itself it would be right: both sides of the comparison are wrong alike."""
    faults = {"WRONG": "0.2"}
    alone = mac.cells("f16/f16", faults=faults)["f16/f16"]
    assert alone.verdict == "pass"
    other = Mac(mac.library, mac.folder / "other")
    judged = other.cells("f16/f16", faults=faults, reference_devices=("CPU",))["f16/f16"]
    assert judged.verdict == "fail"
    assert judged.quality is not None
    assert judged.quality.prefill.kl_mean > 0.001
