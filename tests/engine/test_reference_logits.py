"""A run whose f16 reference comes from a file as llama-perplexity writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.run import cells_of, start

from pytest_kvquant.errors import RunRefused
from pytest_kvquant.inputs.logits_file import write

PLAIN = {"ctx": 128, "chunks": 4, "order": "sequential", "probe": "off", "decode": 0,
         "trajectory": 0, "coverage": "off", "recall": 0, "speed": "off"}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exact logits of f16/f16, rounded as llama-perplexity rounds them."""
    folder = tmp_path_factory.mktemp("logits")
    session = start(folder, pairs=("f16/f16",), **PLAIN)
    source = session.compared.source
    source.ensure(0, 4)
    rows = np.stack([source.rows(chunk, 0, session.task.shape.scored) for chunk in range(4)])
    write(folder / "base.kld", session.task.chunks, rows)
    return folder / "base.kld"


def test_figures_are_those_of_the_exact_reference_but_for_the_bias(
    tmp_path: Path, file: Path
) -> None:
    found = []
    for more in ({}, {"reference_logits": file}):
        session = start(tmp_path, pairs=("q8_0/q4_0",), **PLAIN, **more)
        for pair in session.pairs:
            session.measure(pair)
        found.append(cells_of(session.result()))
    exact, rounded = found
    bias = rounded["f16/f16"].quality.prefill.kl_mean
    assert exact["f16/f16"].quality.prefill.kl_mean == 0
    assert 0 < bias < 2e-3
    assert rounded["f16/f16"].verdict in ("pass", "inconclusive")
    one, other = (cells["q8_0/q4_0"].quality.prefill for cells in found)
    assert other.kl_mean == pytest.approx(one.kl_mean, abs=2 * bias + 1e-6)
    assert other.top1 == pytest.approx(one.top1, abs=0.01)


def test_another_context_is_told_with_the_option_that_fits(tmp_path: Path, file: Path) -> None:
    with pytest.raises(RunRefused, match="run with --kv-ctx 128"):
        start(tmp_path, reference_logits=file, **{**PLAIN, "ctx": 64})


def test_the_result_says_where_the_reference_comes_from(tmp_path: Path, file: Path) -> None:
    session = start(tmp_path, pairs=("f16/f16",), reference_logits=file, **PLAIN)
    session.measure(session.pairs[0])
    result = session.result()
    assert result.reference.file == str(file)
    assert result.corpus.name == "base"
    assert result.reference.computed == 0
