"""What the statistics of the gates assume of real chunks, from evidence kept by a run.

    python -m tools.chunk_statistics DIR

prints one line per cell: how chunks vary, whether neighbours in the corpus are alike, and how far
tokens of a chunk are from independent. ``docs/statistics.md`` has the figures of two models.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import skew

from pytest_kvquant.quality.evidence_file import Kept, read_folder

F64 = npt.NDArray[np.float64]

HEADER = (
    "| cell | chunks | mean KL | CV | skew | lag 1 | se ratio | ln PPL: skew | lag 1 "
    "| flips: D | lag 1 | tail share: D |\n|---|" + "--:|" * 11
)
"""CV and skewness of the chunks' mean KL; correlation of neighbours; chunk-level over token-level
standard error; skewness of the chunks' ln PPL ratio; design effects of flips and tail."""


def line(kept: Kept) -> str:
    """One cell's row."""
    evidence = kept.evidence(tail_over=float(np.quantile(kept.columns.kl, 0.995)))
    seen = evidence.per_chunk()
    place = np.argsort(kept.conditions.chunk_numbers)
    kl = seen.kl
    tokens = kept.columns.kl
    token_error = tokens.std() / np.sqrt(tokens.size - 1)
    chunk_error = kl.std(ddof=1) / np.sqrt(len(kl))
    cells = [
        kept.conditions.pair,
        f"{len(kl)}",
        f"{kl.mean():.5f}",
        f"{kl.std(ddof=1) / kl.mean():.2f}",
        f"{skew(kl):.2f}",
        f"{_neighbours(kl[place]):+.2f}",
        f"{chunk_error / token_error:.2f}",
        f"{skew(seen.ln_ppl):+.2f}",
        f"{_neighbours(seen.ln_ppl[place]):+.2f}",
        f"{_design(seen.flips, evidence.scored):.2f}",
        f"{_neighbours(seen.flips[place]):+.2f}",
        f"{100 * seen.tail.mean():.2f} %: {_design(seen.tail, evidence.scored):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _neighbours(x: F64) -> float:
    """Correlation of neighbouring chunks."""
    return float(np.corrcoef(x[:-1], x[1:])[0, 1])


def _design(shares: F64, scored: int) -> float:
    """Variance of the chunks' shares over that of as many independent tokens."""
    share = shares.mean()
    return float(scored * shares.var(ddof=1) / (share * (1 - share)))


if __name__ == "__main__":
    print(HEADER)
    for kept in read_folder(Path(sys.argv[1])):
        if kept.columns.kl.any():
            print(line(kept))
