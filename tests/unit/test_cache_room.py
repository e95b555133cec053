"""What memory caches may take, and the largest context that is found in it."""

from __future__ import annotations

from typing import Any
from unittest import mock

import msgspec
import pytest

from pytest_kvquant.config.setup import parse_words
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.inputs import geometry
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.ceiling import Attempt
from pytest_kvquant.results.library import CacheType, Device, Library
from pytest_kvquant.speed import ceiling, methods
from pytest_kvquant.speed.streams import SpeedSetup

PAIR = Pair("f16", "f16")
GB = 1_000_000_000
MODEL = msgspec.structs.replace(read_model(EMBEDDED_MODEL), size=19 * GB)
PER_TOKEN = geometry.need(MODEL, PAIR, geometry.F16, ubatch=512).per_token


def device(name: str, free: int, *, gpu: bool = True) -> Device:
    return Device(name=name, description="D", gpu=gpu, free=free, total=80 * GB)


def setup(*gpus: Device, words: str = "", **fields: Any) -> SpeedSetup:
    library = Library(
        path="", bindings="", python="", llama_version=None, ggml_version=None, ggml_commit=None,
        system_info=None, files=(), hash="", devices=(*gpus, device("CPU", 0, gpu=False)),
        types={"f16": CacheType(id=1, block=1, bytes=2, cache=True)},
    )  # fmt: skip
    given: dict[str, Any] = {
        "engine": mock.MagicMock(), "model": MODEL, "library": library, "gpu_layers": -1,
        "batch": 2048, "ubatch": 512, "threads": 1, "options": parse_words(words),
        "memory_limit": None, "floors": mock.MagicMock(), "stored": mock.MagicMock(),
        "expected": {}, "declared": mock.MagicMock(),
    }  # fmt: skip
    return SpeedSetup(**{**given, **fields})


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.memory, "available", lambda: 200 * GB)


def found(
    of: SpeedSetup, holds: int, monkeypatch: pytest.MonkeyPatch, most: int = 1 << 30
) -> ceiling.Ceiling:
    """A search on a device that holds so many tokens."""

    def tried(_pair: Pair, context: int, _room: int, _setup: SpeedSetup) -> Any:
        outcome = "fits" if context <= holds else "out-of-memory"
        return ceiling._Tried(Attempt(context=context, outcome=outcome, text="", seconds=0.0))

    monkeypatch.setattr(ceiling, "_try", tried)
    return ceiling.search(PAIR, most, of)


def test_an_empty_card_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine tenths of 78 GB less 19 GB of weights are 13 % under what works."""
    of = setup(device("CUDA0", 78 * GB))
    holds = (78 - 19) * GB // PER_TOKEN - 1000
    result = found(of, holds, monkeypatch)
    assert 0.99 * holds <= result.tokens <= holds
    assert result.predicted == 59 * GB // PER_TOKEN
    assert len(result.attempts) < 20


def test_a_card_that_holds_less_of_the_weights_is_searched_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The table of embeddings is the CPU's, and with -ncmoe so are experts."""
    of = setup(device("CUDA0", 40 * GB), device("CUDA1", 38 * GB), words="-ncmoe 4")
    holds = 75 * GB // PER_TOKEN
    result = found(of, holds, monkeypatch)
    assert 0.99 * holds <= result.tokens <= holds
    assert found(of, holds, monkeypatch, most=65536).tokens == 65536


@pytest.mark.parametrize("gpus", [(), (device("CUDA0", 78 * GB),)])
def test_a_limit_is_for_caches_wherever_they_lie(
    gpus: tuple[Device, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 GB beside 19 GB of weights were predicted to hold nothing; a limit is kept."""
    of = setup(*gpus, memory_limit=8 * GB)
    result = found(of, 60 * GB // PER_TOKEN, monkeypatch)
    assert result.memory == 8 * GB
    assert result.predicted == 8 * GB // PER_TOKEN
    assert result.tokens == result.bound == result.predicted // 256 * 256
    assert "that 7.5 GiB hold at" in result.text


def test_caches_that_are_kept_off_a_gpu_take_the_host_s_memory() -> None:
    kept = setup(device("CUDA0", 20 * GB), words="-nkvo")
    assert methods.room_beside_weights(kept) == methods.most_room(kept) == 180 * GB
    assert ceiling._may_swap(kept)
    assert methods.room_beside_weights(setup(device("CUDA0", 20 * GB))) == 0


def test_the_host_is_never_used_up() -> None:
    assert methods.most_room(setup()) == 180 * GB


def test_windows_that_hold_every_token_are_counted_so() -> None:
    windowed = msgspec.structs.replace(MODEL, window=64, windowed=None, caches=())
    own = methods.cache_need(PAIR, setup(model=windowed))
    full = methods.cache_need(PAIR, setup(model=windowed, words="--swa-full"))
    assert own.least(8192) < full.least(8192) == 8192 * full.per_token


@pytest.mark.parametrize(("words", "times"), [("", 1), ("-np 4", 4), ("-np 4 -kvu", 1)])
def test_each_sequence_has_room_of_its_own(words: str, times: int) -> None:
    assert methods._need(PAIR, setup(words=words), 1024) == times * 1024 * PER_TOKEN
