"""Early decisions: what they save on the embedded matrix, with the verdicts of the full count."""

from __future__ import annotations

from typing import Any

from pytest_kvquant.results.result import Result

CHUNKS = 32
QUALITY_ONLY = (
    "--kv-decode", "0", "--kv-trajectory", "0", "--kv-speed", "off", "--kv-probe", "off",
    "--kv-coverage", "off",
)  # fmt: skip


def test_early_decisions_over_a_fixed_count(benchmark: Any, run: Any) -> None:
    """Chunks of the default profile over 32 for every cell: at most 40 %, same verdicts."""
    fixed = run("--kv-chunks", str(CHUNKS), *QUALITY_ONLY, name="fixed")
    early = benchmark.pedantic(run, QUALITY_ONLY, kwargs={"name": "early"}, rounds=1)
    share = sum(_chunks(early).values()) / (CHUNKS * len(early.cells))
    benchmark.extra_info["share of chunks"] = share
    print(
        f"\n{len(early.cells)} cells in {share:.1%} of {CHUNKS} chunks each (target 40 %), "
        f"{early.seconds:.0f} s instead of {fixed.seconds:.0f} s: {_chunks(early)}"
    )
    assert _verdicts(early) == _verdicts(fixed)


def _chunks(result: Result) -> dict[str, int]:
    return {cell.pair: len(cell.per_chunk["kl"]) for cell in result.cells}


def _verdicts(result: Result) -> dict[str, str]:
    """By cell and gate of the prefill path: the others see the same tokens in both runs."""
    return {
        f"{cell.pair} {gate.name}": gate.verdict
        for cell in result.cells
        for gate in cell.gates
        if gate.name != "decode_kl_mean"
    }
