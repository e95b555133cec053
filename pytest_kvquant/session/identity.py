"""What a cell is: its census beside what the model's header and the asked types would have."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pytest_kvquant.config.expectations import held_as
from pytest_kvquant.config.overrides import MIXED
from pytest_kvquant.engine.census_record import Census
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.effective_types import Explanation, expected_by, explain, held_bytes
from pytest_kvquant.results.cell import CensusRecord, LayerRecord
from pytest_kvquant.results.library import Library


class Identity(NamedTuple):
    """The census of a cell, explained."""

    record: CensusRecord
    explanation: Explanation
    effective: str
    """The pair that the cache holds; ``mixed`` where layers differ, empty where none is known."""
    declared_bytes: int | None
    """Bytes per token of the types that are held, ``None`` where they cannot be told."""

    def as_declared(self) -> CensusRecord:
        """The census of a declared substitution, with the size of what it is declared to hold."""
        record, expected = self.record, self.declared_bytes
        if expected is None:
            return msgspec.structs.replace(record, understood=False)
        of_f16 = record.expected_bytes_per_token * record.compression_expected
        return msgspec.structs.replace(
            record, expected_bytes_per_token=expected, compression_expected=of_f16 / expected
        )


def identify(
    pair: Pair,
    census: Census,
    control: Census,
    model: Model,
    library: Library,
    expected: str | None,
    *,
    same_pair: bool,
) -> Identity:
    """Explain a census.

    Args:
        control: the census of what the cell is compared with.
        expected: the pair that the configuration says it is substituted by, if any.
        same_pair: whether the control is of the same pair.
    """
    types = msgspec.to_builtins(library.types)
    compared = pair if same_pair else REFERENCE
    expectation = expected_by(model, pair, control, compared, types)
    explanation = explain(census, expectation, types)
    record = CensusRecord(
        layers=tuple(
            LayerRecord(k=layer.k_type, v=layer.v_type, k_row=layer.k_row, v_row=layer.v_row)
            for cache in census.caches
            for layer in cache.layers
        ),
        bytes_per_token=census.bytes_per_token,
        expected_bytes_per_token=expectation.bytes_per_token,
        compression_expected=expectation.compression,
        kind=explanation.kind,
        text=explanation.text,
        source=expectation.source,
        understood=census.problem is None and control.problem is None,
    )
    if explanation.kind == "differs" and not record.understood:
        explanation = explanation._replace(kind="unreadable")
    held = held_as(((layer.k, layer.v) for layer in record.layers), pair, expected)
    effective = MIXED if len(held) > 1 else "".join(map(str, held))
    declared = held_bytes(census, expectation, types) if expected is not None else None
    return Identity(record, explanation, effective, declared)
