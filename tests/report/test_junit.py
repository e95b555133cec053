"""JUnit XML carries the figures of each gate."""

from __future__ import annotations

from xml.etree import ElementTree

from .conftest import Run


def test_figures_are_properties(run: Run) -> None:
    tree = ElementTree.parse(run.folder / "j.xml")
    case = next(
        case
        for case in tree.iter("testcase")
        if case.get("name") == "test_kl_divergence[q8_0/q4_0]"
    )
    found = {one.get("name"): one.get("value") for one in case.iter("property")}
    cell = next(cell for cell in run.result.cells if cell.pair == "q8_0/q4_0")
    gate = cell.gates[0]
    assert cell.quality is not None
    assert float(found["kv_kl_mean"] or "") == gate.figure
    assert float(found["kv_kl_mean_budget"] or "") == gate.budget
    assert found["kv_kl_mean_verdict"] == gate.verdict
    assert float(found["kv_kl_p999"] or "") == cell.quality.prefill.kl_p999
