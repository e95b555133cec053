"""What the quantizer test found of one cache type."""

from __future__ import annotations

import msgspec

from pytest_kvquant.numerics.quantizer import QuantizerFigures
from pytest_kvquant.numerics.quantizer_limits import Finding


class QuantizerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One type's reference quantizer, held against arithmetic."""

    type: str
    """ggml name."""
    figures: QuantizerFigures | None = None
    """None where it could not be asked."""
    findings: tuple[Finding, ...] = ()
    """Rules that it breaks."""
    known: bool = False
    """Whether figures of this type (name, block, bits) are accepted, and it was held to them."""
    gained: float = 0.0
    """dB on a normal source over the accepted figures; 0 where it is no better."""
    by_rows: float = 1.0
    """Share of bytes that ``ggml_quantize_chunk`` writes as ``from_float_ref`` does; types with
    more than one way to choose a scale (iq4_nl) differ there by design."""
    problem: str | None = None
    """Why it could not be asked, in words."""
