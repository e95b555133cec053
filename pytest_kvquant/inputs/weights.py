"""What a token costs in weights: bytes that are read for it, and elements it is multiplied with.

From the tensor table of a GGUF header, by the names that the format gives: of a table of embeddings
one row is read, of a mixture's experts those that are used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import msgspec

from pytest_kvquant.inputs.gguf_header import BLOCKS, BadHeader, TensorInfo
from pytest_kvquant.inputs.header_fields import Fields

OUTPUT = "output.weight"
EMBEDDING = "token_embd.weight"
"""Also the output's matrix where a model has no :data:`OUTPUT` of its own."""

_ONE_ROW = re.compile(r"(per_layer_token_embd|position_embd|token_types)\.weight")
"""Tables of which a token reads a row."""

_IDLE = re.compile(r"\.nextn\.")
"""Heads that predict further tokens: llama.cpp loads them and decodes without."""

_EXPERTS = re.compile(r"_exps\.")


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """Of one token."""

    read: int
    """Bytes read to decode one token by itself."""
    multiplied: int
    """Elements of matrices that each token of a prefill is multiplied with: all but the output's,
    which only the last token of a batch needs."""


def weights(tensors: Iterable[TensorInfo], of: Fields) -> Weights | None:
    """What a token costs in weights; ``None``: a type's size or the share of experts is not known.

    Args:
        tensors: of all files of a model.
        of: the header's fields, for the experts.
    """
    tensors = list(tensors)
    try:
        experts, used = of.count("{arch}.expert_count", 0), of.count("{arch}.expert_used_count", 0)
    except BadHeader:  # another number in each layer, perhaps: nothing here is refused for it
        return None
    own_output = any(tensor.name == OUTPUT for tensor in tensors)
    read = multiplied = 0.0
    for tensor in tensors:
        if tensor.type not in BLOCKS:
            return None
        if _ONE_ROW.fullmatch(tensor.name) or _IDLE.search(tensor.name):
            continue
        if tensor.name == EMBEDDING and own_output:
            continue
        block, size = BLOCKS[tensor.type]
        elements = math.prod(tensor.shape)
        share = min(1.0, used / experts) if experts and _EXPERTS.search(tensor.name) else 1.0
        read += share * (elements // block * size)
        if len(tensor.shape) > 1 and tensor.name not in (OUTPUT, EMBEDDING):
            multiplied += share * elements
    return Weights(read=round(read), multiplied=round(multiplied))
