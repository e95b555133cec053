"""Whether f16 makes sense on a text at all: where it does not, figures against it mean nothing."""

from __future__ import annotations

import math

from pytest_kvquant.results.result import Result

UNIGRAM = 10.0
"""Times the perplexity of a model that knows how often each token comes and nothing else."""


def doubt(ppl: float, vocabulary: int, unigram: float) -> str:
    """Why f16's perplexity is out of all reason, in one line; empty where it is not.

    Args:
        ppl: of f16.
        vocabulary: tokens; a model that knows nothing has this perplexity.
        unigram: perplexity that the frequencies of the text's own tokens give; 0: not known.

    >>> doubt(40.0, 4096, 300.0)
    ''
    >>> doubt(3500.0, 4096, 300.0).partition(":")[0]
    "f16's perplexity of 3,500 is above 10 times the 300 of a model that knows how often each \
token comes"
    """
    if not math.isfinite(ppl):
        return ""  # told as what it is
    if ppl > vocabulary:
        above = f"the {vocabulary:,} of a model that knows nothing"
    elif unigram and ppl > UNIGRAM * unigram:
        above = f"10 times the {unigram:,.0f} of a model that knows how often each token comes"
    else:
        return ""
    return (
        f"f16's perplexity of {ppl:,.0f} is above {above}: wrong tokenizer, chat template, text or "
        "model; figures on it mean nothing"
    )


def doubt_of(result: Result) -> str:
    """The same of a result; empty too where no cell was measured against f16."""
    if result.reference.by_cell:
        return ""
    for cell in result.cells:
        if cell.quality is not None:
            return doubt(
                cell.quality.prefill.ppl_reference,
                result.model.vocabulary,
                result.corpus.unigram_ppl,
            )
    return ""
