"""Which layers turn their queries and keys by position, as llama.cpp builds them."""

from __future__ import annotations

from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.inputs.ropes import ROPED

STEP = 4
"""Every fourth layer is not turned, where some are not (``n_no_rope_layer_step``)."""

EVERY_FOURTH = frozenset({"afmoe", "smollm3"})

BY_WINDOW = frozenset({"cohere2", "exaone-moe", "exaone4", "maple"})
"""Architectures that turn layers with a window; where none has one, ``exaone4`` turns all."""

BY_TRAINING = frozenset({"granite", "granitemoe", "granitehybrid"})
"""Architectures that turn nothing where the header says that ropes were not trained."""

TURNED_BAICHUAN = 32
"""Layers of the Baichuan that turns; the others have ALiBi or nothing."""

NOT_KNOWN = frozenset({"cohere2moe", "granite_swa"})
"""Architectures whose layers differ by rules of their own."""


def turned(model: Model, of: Fields) -> list[bool] | None:
    """Whether each layer's queries and keys come through a rope; ``None``: not known."""
    architecture, layers = model.architecture, model.n_layer
    if architecture in NOT_KNOWN:
        return None
    if architecture in BY_WINDOW and (model.window or architecture != "exaone4"):
        return None if model.windowed is None else list(model.windowed)
    every = architecture in ROPED and (architecture != "baichuan" or layers == TURNED_BAICHUAN)
    if architecture in BY_TRAINING:
        every = of.flag("{arch}.rope.scaling.finetuned", True)
    skipped = _skipped(model)
    return [every and layer not in skipped for layer in range(layers)]


def _skipped(model: Model) -> range:
    """Layers that are not turned, where others are."""
    layers = model.n_layer
    if model.architecture in EVERY_FOURTH or (model.architecture == "llama4" and model.window):
        return range(STEP - 1, layers, STEP)
    if model.architecture == "llama4":
        return range(layers - 1, layers)  # its step is the number of layers
    if model.architecture == "smallthinker" and model.window:
        return range(0, layers, STEP)
    return range(0)
