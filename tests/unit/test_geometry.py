from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import pytest
from support.states import TYPES, Side, attention

from pytest_kvquant.engine import census, census_record
from pytest_kvquant.inputs import geometry
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import Pair
from pytest_kvquant.quality.effective_types import explain

GOLDEN = Path(__file__).parents[1] / "golden" / "fork"
FORK = json.loads((GOLDEN / "types.json").read_text())


def model(*heads: int, dim: int = 64, dim_v: int | None = None) -> Model:
    return Model(
        path="m.gguf",
        name="m",
        architecture="qwen3",
        fingerprint="0",
        size=1,
        context_trained=4096,
        n_layer=len(heads),
        n_embd=64,
        n_head=8,
        n_head_kv=heads,
        head_dim_k=dim,
        head_dim_v=dim_v or dim,
        causal=True,
    )


def counted(*layers: tuple[Side, Side], window: int = 0) -> census_record.Census:
    """A census of a base cache and, of the last ``window`` layers, a window cache."""
    base, rest = layers[: len(layers) - window], layers[len(layers) - window :]
    state = attention(base, 4) + (attention(rest, 4) if rest else b"")
    return census.read(state, TYPES, window=bool(rest))


@pytest.mark.parametrize(
    ("name", "heads", "dim", "bytes_"),
    [
        ("f16", 2, 128, 512),
        ("q8_0", 2, 128, 272),
        ("turbo4", 2, 128, 136),
        ("turbo3", 2, 128, 100),
        ("turbo3", 2, 64, 100),
        ("turbo3", 2, 80, 100),
    ],
)
def test_rows(name: str, heads: int, dim: int, bytes_: int) -> None:
    assert geometry.row_bytes(FORK[name], heads, dim) == bytes_


def test_bytes_per_token_and_compression() -> None:
    found = geometry.expect(model(2, 0, 2, dim=128), Pair("q8_0", "turbo4"), FORK)
    assert found.bytes_per_token == 2 * (272 + 136)
    assert found.compression == pytest.approx(1024 / 408)
    assert [layer.number for layer in found.layers] == [0, 2]


def test_a_model_without_kv_cache_needs_nothing() -> None:
    found = geometry.expect(model(0, 0), Pair("q8_0", "q8_0"), TYPES)
    assert (found.bytes_per_token, found.compression) == (0, 1.0)


def test_agreement() -> None:
    expected = geometry.expect(model(2, 2), Pair("q8_0", "q4_0"), TYPES)
    found = counted(*[(Side("q8_0", 128), Side("q4_0", 128))] * 2)
    assert explain(found, expected, TYPES) == (
        "agree",
        "416 bytes per token, as the model's geometry says",
    )
    assert found.bytes_per_token == expected.bytes_per_token


def test_substitution_names_the_layers() -> None:
    right = (Side("q8_0", 64), Side("q4_0", 64))
    wrong = (Side("q8_0", 64), Side("q8_0", 64))
    expected = geometry.expect(model(0, 1, 1, 0, 1, 1), Pair("q8_0", "q4_0"), TYPES)
    found = explain(counted(wrong, wrong, right, wrong), expected, TYPES)
    assert found == ("substituted", "V is q8_0 instead of q4_0 on layers 1-2, 5")


def test_swapped_sides_are_two_substitutions() -> None:
    expected = geometry.expect(model(1), Pair("q8_0", "q4_0"), TYPES)
    found = explain(counted((Side("q4_0", 64), Side("q8_0", 64))), expected, TYPES)
    assert (
        found.text == "K is q4_0 instead of q8_0 on layer 0; V is q8_0 instead of q4_0 on layer 0"
    )


def test_window_layers_are_numbered_within_their_cache_unless_the_model_tells() -> None:
    right, wrong = (Side("f16", 64), Side("f16", 64)), (Side("f16", 64), Side("q8_0", 64))
    pair, found = Pair("f16", "f16"), counted(right, right, wrong, window=1)
    blind = geometry.expect(windowed(model(1, 1, 1), 64, None), pair, TYPES)
    assert explain(found, blind, TYPES).text == ("V is q8_0 instead of f16 on window layer 0")
    told = geometry.expect(windowed(model(1, 1, 1), 64, (False, True, False)), pair, TYPES)
    assert explain(found, told, TYPES).text == "V is q8_0 instead of f16 on layer 1"


def windowed(of: Model, window: int, layers: tuple[bool, ...] | None) -> Model:
    return msgspec.structs.replace(of, window=window, windowed=layers)


class TestNeed:
    """f16 at one head of 64 elements: 256 bytes per token and layer."""

    def needed(self, window: int, layers: tuple[bool, ...] | None) -> geometry.Need:
        described = windowed(model(1, 1, 1, 1), window, layers)
        return geometry.need(described, Pair("f16", "f16"), TYPES, ubatch=512)

    def test_without_windows_every_layer_holds_every_token(self) -> None:
        found = self.needed(0, ())
        assert found == (1024, 0, 0)
        assert found.least(5000) == 5000 * 1024
        assert found.predicted_tokens(5000 * 1024 + 1023) == found.most_tokens(5_120_000) == 5000

    def test_window_layers_hold_a_window_and_a_batch(self) -> None:
        found = self.needed(1000, (True, True, True, False))
        assert found == (1024, 768, 1536)
        assert found.least(1536) == 1536 * 1024
        assert found.least(100_000) == 1536 * 768 + 100_000 * 256
        assert found.predicted_tokens(found.least(100_000)) == 100_000
        assert found.predicted_tokens(found.least(1537)) == 1537
        assert found.predicted_tokens(found.least(1536) - 1) == 1535

    def test_windows_of_unknown_layers_refuse_nothing_and_promise_nothing(self) -> None:
        found = self.needed(1000, None)
        assert found.least(100_000) == 1536 * 1024
        assert found.most_tokens(1536 * 1024) == math.inf
        assert found.most_tokens(1535 * 1024) == 1535
        assert found.predicted_tokens(100_000 * 1024) == 100_000

    def test_where_nothing_grows_nothing_is_predicted(self) -> None:
        found = self.needed(1000, (True,) * 4)
        assert (found.most_tokens(1e9), found.predicted_tokens(1e9)) == (math.inf, 0)
        assert found.predicted_tokens(-1.0) == 0


def test_padded_heads_of_the_fork() -> None:
    found = census.read((GOLDEN / "padded.state").read_bytes(), FORK)
    expected = geometry.expect(model(2, 2, dim=80), Pair("turbo3", "turbo3"), FORK)
    assert explain(found, expected, FORK) == (
        "padded",
        "each K head is padded from 80 to 128 elements on layers 0-1; "
        "each V head is padded from 80 to 128 elements on layers 0-1",
    )


def test_upgraded_k_of_the_fork() -> None:
    found = census.read((GOLDEN / "auto-asymmetric.state").read_bytes(), FORK)
    expected = geometry.expect(model(1, 1, dim=128), Pair("turbo3", "turbo3"), FORK)
    assert explain(found, expected, FORK) == (
        "substituted",
        "K is q8_0 instead of turbo3 on layers 0-1",
    )


def test_boundary_layers_of_the_fork() -> None:
    found = census.read((GOLDEN / "boundary-v.state").read_bytes(), FORK)
    expected = geometry.expect(model(*[2] * 10, dim=128), Pair("turbo2", "turbo2"), FORK)
    assert explain(found, expected, FORK).text == ("V is q8_0 instead of turbo2 on layers 0-1, 8-9")


def test_sizes_without_explanation_differ() -> None:
    expected = geometry.expect(model(1, 1), Pair("f16", "f16"), TYPES)
    odd = counted(*[(Side("f16", 64), Side("f16", 67))] * 2)
    assert explain(odd, expected, TYPES) == (
        "differs",
        "a V row has 134 bytes of f16, which 1 head of 64 elements cannot fill on layers 0-1",
    )
    few = counted((Side("f16", 64), Side("f16", 64)))
    assert explain(few, expected, TYPES) == (
        "differs",
        "the cache has 1 layer, the model's header describes 2",
    )


def test_an_unreadable_census_stays_so() -> None:
    expected = geometry.expect(model(1), Pair("f16", "f16"), TYPES)
    found = explain(census.unreadable("of a test"), expected, TYPES)
    assert found == ("unreadable", "not readable: of a test")
