"""Contexts that a model was not trained for, in words: its figures there are of something else."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_kvquant.errors import ModelError
from pytest_kvquant.inputs.gguf_header import BadHeader, Value
from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.inputs.model import Model

GAINED = ("yarn", "linear", "longrope")
"""Kinds of rope scaling that reach beyond the original context."""


def warnings(
    model: Model, header: Mapping[str, Value], tokens: int, setup: Mapping[str, object]
) -> list[str]:
    """What a person should know of the context lengths of a run.

    Args:
        header: fields of the GGUF header by name.
        tokens: the longest context that anything of the run has.
        setup: options of llama.cpp that the user set.

    Raises:
        ModelError: the header says something that cannot be meant.
    """
    of = Fields(header, model.architecture)
    try:
        own = of.text("{arch}.rope.scaling.type") or "none"
        original = of.count("{arch}.rope.scaling.original_context_length", 0)
    except BadHeader as error:
        raise ModelError(f"The model {model.path} {error}.") from None
    scaled = str(setup.get("rope-scaling") or own)
    trained = model.context_trained
    switched_off = own in GAINED and scaled not in GAINED
    if original and tokens > original and scaled not in GAINED:
        why = "--kv-llama switched it off" if switched_off else "its header does not say how"
        return [
            f"contexts of {tokens:,} tokens: the model was trained on {original:,}, reaches "
            f"{trained:,} by scaled ropes (YaRN), and {why}: give --kv-llama='--rope-scaling yarn "
            f"--rope-scale {trained / original:g} --yarn-orig-ctx {original}'"
        ]
    if trained and tokens > trained and "rope-scaling" not in setup:
        return [
            f"contexts of {tokens:,} tokens: the model was trained for {trained:,}, and what it "
            "writes beyond means little; scaled ropes reach further (--kv-llama='--rope-scaling "
            f"yarn --rope-scale {tokens / trained:.3g} --yarn-orig-ctx {trained}'), if it was made "
            "for them"
        ]
    return []
