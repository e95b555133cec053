"""Where the header does not explain f16's cache, that cache is the geometry and types scale it."""

from __future__ import annotations

import msgspec
from support.states import TYPES, Side, attention

from pytest_kvquant.engine import census, census_record
from pytest_kvquant.inputs.caches import CachedLayer, CacheShape
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.effective_types import expected_by, explain

MODEL = Model(
    path="m.gguf",
    name="m",
    architecture="unheard-of",
    fingerprint="0",
    size=1,
    context_trained=4096,
    n_layer=2,
    n_embd=64,
    n_head=2,
    n_head_kv=(2, 2),
    head_dim_k=64,
    head_dim_v=64,
    causal=True,
)
PAIR = Pair("q8_0", "q4_0")


def counted(*caches: list[tuple[Side, Side]]) -> census_record.Census:
    return census.read(b"".join(attention(tuple(layers), 4) for layers in caches), TYPES)


def layers(k: str, v: str, *elements: tuple[int, int]) -> list[tuple[Side, Side]]:
    return [(Side(k, wide), Side(v, narrow)) for wide, narrow in elements]


def test_a_header_that_explains_f16_is_believed() -> None:
    control = counted(layers("f16", "f16", (128, 128), (128, 128)))
    found = expected_by(MODEL, PAIR, control, REFERENCE, TYPES)
    assert (found.source, found.bytes_per_token) == ("header", 2 * (136 + 72))


def test_an_unknown_geometry_is_f16_s() -> None:
    control = counted(layers("f16", "f16", (128, 128)), layers("f16", "f16", (64, 32)))
    found = expected_by(MODEL, PAIR, control, REFERENCE, TYPES)
    assert (found.source, found.described) == ("f16", 2 * (136 + 72))
    assert found.bytes_per_token == 136 + 72 + 68 + 18
    assert found.compression == (512 + 192) / found.bytes_per_token
    cell = counted(layers("q8_0", "q4_0", (128, 128)), layers("q8_0", "q4_0", (64, 32)))
    told = explain(cell, found, TYPES)
    assert told.kind == "agree"
    assert told.text == (
        "294 bytes per token; the geometry of this model is not known (its header reads as 416 in "
        "f16's place): taken from f16"
    )


def test_f16_itself_is_never_red_for_its_geometry() -> None:
    control = counted(layers("f16", "f16", (128, 128)), layers("f16", "f16", (64, 32)))
    found = expected_by(MODEL, REFERENCE, control, REFERENCE, TYPES)
    assert explain(control, found, TYPES).kind == "agree"


def test_a_cell_that_is_not_f16_scaled_differs_or_is_substituted() -> None:
    control = counted(layers("f16", "f16", (128, 128)))
    found = expected_by(MODEL, PAIR, control, REFERENCE, TYPES)
    wide = counted(layers("q8_0", "q4_0", (256, 128)))
    assert explain(wide, found, TYPES) == (
        "differs",
        "a K row has 272 bytes of q8_0, which 128 elements cannot fill on base layer 0",
    )
    other = counted(layers("q8_0", "q8_0", (128, 128)))
    assert explain(other, found, TYPES) == (
        "substituted",
        "V is q8_0 instead of q4_0 on base layer 0",
    )


def test_heads_that_a_type_pads_show_without_their_number() -> None:
    control = counted(layers("f16", "f16", (160, 160)))
    found = expected_by(MODEL, Pair("q8_0", "q8_0"), control, REFERENCE, TYPES)
    padded = counted(layers("q8_0", "q8_0", (256, 256)))
    told = explain(padded, found, TYPES)
    assert told.kind == "padded"
    assert "each K head is padded to a multiple of 128 elements on base layer 0" in told.text


def test_an_unreadable_control_leaves_the_header() -> None:
    control = census.unreadable("of a test")
    assert expected_by(MODEL, PAIR, control, REFERENCE, TYPES).source == "header"


def test_layers_without_v_where_the_header_says_so() -> None:
    latent = (CacheShape("attention", (CachedLayer(0, 1, 64, 0),)),)
    model = msgspec.structs.replace(MODEL, caches=latent)
    control = counted(layers("f16", "f16", (64, 64)))
    found = expected_by(model, REFERENCE, control, REFERENCE, TYPES)
    assert found.source == "f16"  # there is a V of which the header knows nothing
    assert found.bytes_per_token == 256
