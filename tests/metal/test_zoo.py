"""The zoo where attention leaves the device: what the scheduler copies is still followed."""

from __future__ import annotations

from metal.conftest import Mac
from metal.test_demo import configured, run
from pytest_kvquant.results.file import read


def test_queries_that_are_copied_to_the_cpu_keep_their_scale(mac: Mac) -> None:
    """Gemma 2 multiplies them beforehand, on the device; its attention here runs on the CPU."""
    configured(mac)
    done = run(mac, "--kv-pairs=f16/q4_0", "--kv-zoo=gemma2-256", "-k", "test_zoo",
               "--kv-json=kv.json", "--kv-speed=off")  # fmt: skip
    cells = {one.pair: one for one in read(mac.folder / "kv.json").zoo}
    checks = {one.name: one for one in cells["f16/q4_0"].checks}
    assert "runs on CPU" in checks["attention_placement"].text, done.stdout[-4000:]
    assert checks["graph_inputs"].verdict == "pass", checks["graph_inputs"].text
    assert checks["attention"].verdict == "pass", checks["attention"].text
