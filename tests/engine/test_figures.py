"""Figures known beforehand, as other programs measured them too.

f16 and three pairs of kvq-ref-15m on wikitext-2, as upstream llama.cpp computes them on a CPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.run import cells_of, start

from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.metrics import Quality

pytestmark = pytest.mark.timeout(1200)
"""Half a minute of two cores; a busy machine takes many times that."""

FIGURES = {
    "q8_0/q8_0": (0.000344, 98.750),
    "q8_0/q4_0": (0.002652, 96.225),
    "q4_0/q4_0": (0.007808, 94.534),
}
"""Mean KL in nats, top-1 agreement in percent."""


@pytest.fixture(scope="module")
def measured(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Quality]:
    model = shared / "models" / "kvq-ref-15m.q8_0.gguf"
    corpus = shared / "corpora" / "wikitext-2.test.txt"
    if not (model.is_file() and corpus.is_file()):
        pytest.skip("kvq-ref-15m or wikitext-2 is not in ../shared")
    session = start(
        tmp_path_factory.mktemp("figures"), pairs=tuple(FIGURES), model=model,
        corpus=(str(corpus),),
        ctx=512, chunks=16, order="sequential", decode=0, trajectory=0, probe="off", coverage="off",
    )  # fmt: skip
    for pair in FIGURES:
        session.measure(Pair.parse(pair))
    cells = cells_of(session.result())
    return {
        pair: cells[pair].quality.prefill  # type: ignore[union-attr]
        for pair in FIGURES
    }


@pytest.mark.parametrize("pair", FIGURES)
def test_known_figures(pair: str, measured: dict[str, Quality]) -> None:
    kl, top1 = FIGURES[pair]
    found = measured[pair]
    assert (found.tokens, found.chunks) == (4080, 16)
    assert found.ppl_reference == pytest.approx(28.828, abs=0.0006)
    assert found.kl_mean == pytest.approx(kl, rel=0.01)
    assert 100 * found.top1 == pytest.approx(top1, abs=0.1)
