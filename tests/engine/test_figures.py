"""Figures known beforehand, as other programs measured them too.

f16 and three pairs of kvq-ref-15m on wikitext-2, as upstream llama.cpp computes them on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.run import start

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


REFERENCE_PPL = 28.828

Measure = Callable[[str], tuple[Quality, bool]]
"""Figures of a pair, and whether the CPU's kernels are those that the known figures are of: another
width of vectors adds up in another order, and rounds activations to 8 bits the other way."""


@pytest.fixture(scope="module")
def measure(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Measure:
    model = shared / "models" / "kvq-ref-15m.q8_0.gguf"
    corpus = shared / "corpora" / "wikitext-2.test.txt"
    if not (model.is_file() and corpus.is_file()):
        pytest.skip("kvq-ref-15m or wikitext-2 is not in ../shared")
    session = start(
        tmp_path_factory.mktemp("figures"), pairs=tuple(FIGURES), model=model,
        corpus=(str(corpus),),
        ctx=512, chunks=16, order="sequential", decode=0, trajectory=0, probe="off", coverage="off",
        recall=0, healthy="off",
    )  # fmt: skip

    def measured(pair: str) -> tuple[Quality, bool]:
        cell = session.measure(Pair.parse(pair))
        assert cell.quality is not None, cell.message
        same = "AVX512 = 1" in (session.ready.library.system_info or "")
        return cell.quality.prefill, same

    return measured


@pytest.mark.parametrize(
    "pair",
    [
        "q8_0/q4_0",
        *(pytest.param(one, marks=pytest.mark.slow) for one in FIGURES if one != "q8_0/q4_0"),
    ],
)
def test_known_figures(pair: str, measure: Measure) -> None:
    kl, top1 = FIGURES[pair]
    found, same_kernels = measure(pair)
    assert (found.tokens, found.chunks) == (4080, 16)
    if same_kernels:
        assert found.ppl_reference == pytest.approx(REFERENCE_PPL, abs=0.0006)
        assert found.kl_mean == pytest.approx(kl, rel=0.01)
        assert 100 * found.top1 == pytest.approx(top1, abs=0.1)
        return
    # Roundings that fall otherwise are another draw of the same noise: f16 moves by less than what
    # the quantized pair moves it, and figures by their own errors (AVX2: PPL 28.8225, KL 0.000350).
    assert found.ppl_reference == pytest.approx(REFERENCE_PPL, abs=3 * found.ppl_delta_se)
    assert found.kl_mean == pytest.approx(kl, abs=3 * found.kl_mean_se)
    share = top1 / 100
    assert found.top1 == pytest.approx(share, abs=3 * (share * (1 - share) / found.tokens) ** 0.5)
