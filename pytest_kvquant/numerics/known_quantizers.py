"""Accepted figures of known types: llama.cpp's, and those of the forks that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import msgspec

from pytest_kvquant.numerics.quantizer import QuantizerFigures
from pytest_kvquant.numerics.quantizer_rules import same_type


@cache
def table() -> Sequence[QuantizerFigures]:
    """The shipped figures (``data/quantizers.json``, made by ``tools/quantizer_table.py``)."""
    text = (files("pytest_kvquant") / "data" / "quantizers.json").read_bytes()
    return msgspec.json.decode(text, type=tuple[QuantizerFigures, ...])


def known(figures: QuantizerFigures) -> QuantizerFigures | None:
    """What is accepted of this type; ``None`` for one that is not known.

    Types of one name in several forks are told apart by block and bits.
    """
    return next((one for one in table() if same_type(figures, one)), None)
