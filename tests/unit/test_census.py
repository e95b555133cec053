from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.states import TYPES, Side, attention, prefix, recurrent

from pytest_kvquant.engine import census
from pytest_kvquant.engine.census_record import Census

GOLDEN = Path(__file__).parents[1] / "golden" / "fork"
Q8, Q4, F16 = Side("q8_0", 128), Side("q4_0", 128), Side("f16", 128)


def types_of_the_fork() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads((GOLDEN / "types.json").read_text())
    return found


def golden(name: str, *, window: bool = False) -> Census:
    state = (GOLDEN / f"{name}.state").read_bytes()
    return census.read(state, types_of_the_fork(), window=window)


@pytest.mark.parametrize("before", [b"", prefix(), prefix(3)], ids=["fork", "upstream", "seq 3"])
def test_plain_cache(before: bytes) -> None:
    found = census.read(before + attention([(Q8, Q4)] * 3, 5), TYPES)
    assert found.problem is None
    (cache,) = found.caches
    assert (cache.kind, cache.streams, cache.cells, cache.first, cache.last) == ("base", 1, 5, 0, 4)
    assert [(layer.k_type, layer.v_type) for layer in cache.layers] == [("q8_0", "q4_0")] * 3
    assert found.bytes_per_token == 3 * (136 + 72)


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_only_the_stream_of_the_sequence_is_counted(stream: int) -> None:
    state = attention([(Q8, Q4)], 4, streams=3, stream=stream, sequence=stream)
    (cache,) = census.read(state, TYPES).caches
    assert (cache.streams, cache.cells) == (3, 4)


def test_window_cache_comes_second() -> None:
    state = attention([(Q8, Q4)] * 2, 8) + attention([(F16, Q4)], 3, first=5)
    base, window = census.read(state, TYPES, window=True).caches
    assert (base.kind, window.kind) == ("base", "window")
    assert (window.first, window.last) == (5, 7)
    assert [cache.kind for cache in census.read(state, TYPES).caches] == ["base", "other"]


def test_hybrid_and_recurrent_alone() -> None:
    tail = recurrent(3, of=4)
    hybrid = census.read(attention([(Q8, Q4)], 6) + tail, TYPES)
    assert hybrid.bytes_per_token == 136 + 72
    assert hybrid.recurrent_bytes == len(tail)
    alone = census.read(prefix() + tail, TYPES)
    assert (alone.problem, alone.caches, alone.bytes_per_token) == (None, (), 0)


@pytest.mark.parametrize("cells", [1, 2, 9])
@pytest.mark.parametrize("extra", [8, 12])
def test_extended_positions(cells: int, extra: int) -> None:
    (cache,) = census.read(attention([(Q8, Q4)], cells, extra=extra), TYPES).caches
    assert (cache.cell_bytes, cache.cells, cache.last) == (12 + extra, cells, cells - 1)


def test_no_values_where_the_architecture_has_none() -> None:
    found = census.read(attention([(F16, None)] * 2, 4), TYPES)
    assert [layer.v_type for layer in found.caches[0].layers] == [None, None]
    assert found.bytes_per_token == 2 * 256


def test_transposed_values_come_back_as_rows() -> None:
    state = bytearray(attention([(F16, Side("f16", 3))], 2, transposed=True))
    found = census.read(bytes(state), TYPES)
    (cache,) = found.caches
    (layer,) = cache.layers
    assert cache.v_transposed
    assert layer.v_row == 6
    stored = np.arange(6, dtype="<i2").reshape(3, 2)  # three elements, each with both cells
    state[layer.v_at : layer.v_at + 12] = stored.tobytes()
    rows = census.value_rows(np.frombuffer(bytes(state), np.uint8), cache, layer)
    assert rows.copy().view("<i2").tolist() == [[0, 2, 4], [1, 3, 5]]


def test_rows_and_positions_are_where_the_census_says() -> None:
    state = np.frombuffer(prefix() + attention([(Q8, Q4)] * 2, 3, first=4), np.uint8)
    (cache,) = census.read(state, TYPES).caches
    assert census.positions(state, cache).tolist() == [4, 5, 6]
    for layer in cache.layers:
        assert census.key_rows(state, cache, layer).shape == (3, 136)
        assert (census.key_rows(state, cache, layer) == 7).all()
        assert (census.value_rows(state, cache, layer) == 7).all()


def test_the_fork_upgrades_k_without_being_asked() -> None:
    (cache,) = golden("auto-asymmetric").caches
    assert [(layer.k_type, layer.v_type) for layer in cache.layers] == [("q8_0", "turbo3")] * 2


def test_the_fork_gives_boundary_layers_another_v() -> None:
    (cache,) = golden("boundary-v").caches
    assert [layer.v_type for layer in cache.layers] == ["q8_0"] * 2 + ["turbo2"] * 6 + ["q8_0"] * 2


def test_the_fork_pads_heads() -> None:
    (cache,) = golden("padded").caches
    assert [(layer.k_row, layer.v_row) for layer in cache.layers] == [(100, 100)] * 2


def test_other_caches_of_the_fork() -> None:
    assert [len(cache.layers) for cache in golden("window", window=True).caches] == [1, 2]
    assert golden("hybrid").recurrent_bytes == 556
    assert golden("streams").caches[0].streams == 3
    assert golden("mrope").caches[0].cell_bytes == 20


@pytest.mark.parametrize(
    "state",
    [b"", prefix(), prefix()[:5], b"\0" * 40, b"\xff" * 40, attention([(Q8, Q4)], 5) + b"\0"],
    ids=["empty", "prefix", "half a prefix", "zeros", "ones", "a byte too many"],
)
def test_what_is_not_understood_says_so(state: bytes) -> None:
    found = census.read(state, TYPES)
    assert found.caches == ()
    assert found.bytes_per_token is None
    assert (found.problem or "").startswith("not readable: ")


def test_type_and_row_that_do_not_belong_together_are_no_reading() -> None:
    state = bytearray(attention([(F16, F16)], 2))
    at = state.index((1).to_bytes(4, "little") + (256).to_bytes(8, "little"))
    state[at : at + 4] = (8).to_bytes(4, "little")  # 256 is no multiple of 34
    assert census.read(bytes(state), TYPES).problem is not None


def test_growth_is_the_last_resort() -> None:
    sizes = [len(attention([(Q8, Q4)] * 2, cells)) for cells in (10, 30)]
    assert census.growth((10, 30), (sizes[0], sizes[1])) == 2 * (136 + 72) + 12
    with pytest.raises(ValueError, match="different"):
        census.growth((3, 3), (1, 1))


def test_a_census_travels_as_json() -> None:
    for found in (golden("window", window=True), census.unreadable("of a test", 12.5)):
        assert msgspec.convert(json.loads(json.dumps(found)), Census) == found


side = st.builds(Side, st.sampled_from(sorted(TYPES)), st.sampled_from([32, 64, 256]))


@settings(max_examples=150, deadline=None)
@given(
    layers=st.lists(st.tuples(side, side), min_size=1, max_size=4),
    cells=st.integers(1, 6),
    streams=st.integers(1, 3),
    extra=st.sampled_from(census.EXTRA_POSITION_BYTES),
    first=st.integers(0, 1 << 20),
    states=st.integers(0, 3),
    windows=st.booleans(),
    upstream=st.booleans(),
)
def test_every_layout_is_read_back(
    layers: list[tuple[Side, Side]],
    cells: int,
    streams: int,
    extra: int,
    first: int,
    states: int,
    windows: bool,
    upstream: bool,
) -> None:
    cache = attention(layers, cells, streams=streams, extra=extra, first=first)
    state = (prefix() if upstream else b"") + cache * (2 if windows else 1)
    state += recurrent(states, of=8) if states else b""
    found = census.read(state, TYPES, window=windows)
    assert found.problem is None
    assert len(found.caches) == (2 if windows else 1)
    for got in found.caches:
        assert (got.cells, got.first, got.cell_bytes) == (cells, first, 12 + extra)
        assert [(layer.k_type, layer.k_row) for layer in got.layers] == [
            (key.type, key.row) for key, _ in layers
        ]
        assert [(layer.v_type, layer.v_row) for layer in got.layers] == [
            (value.type, value.row) for _, value in layers
        ]


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(["auto-asymmetric", "window", "hybrid", "streams"]),
    cut=st.integers(0, 1300),
    changes=st.lists(st.tuples(st.integers(0, 1299), st.integers(0, 255)), max_size=6),
)
def test_damaged_states_never_raise(name: str, cut: int, changes: list[tuple[int, int]]) -> None:
    state = bytearray((GOLDEN / f"{name}.state").read_bytes())
    for at, value in changes:
        state[at % len(state)] = value
    found = census.read(bytes(state[:cut]), types_of_the_fork())
    assert found.problem is not None or found.bytes_per_token is not None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=60))
def test_noise_never_raises(tail: bytes, numbers: list[int]) -> None:
    head = b"".join(number.to_bytes(4, "little") for number in numbers)
    census.read(head + tail, TYPES)
