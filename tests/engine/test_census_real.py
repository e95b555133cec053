"""The census of real caches: tiny models, the installed llama.cpp, a process of its own each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.tinygguf import Tiny, write

from pytest_kvquant.engine import census
from pytest_kvquant.engine.census_record import Census
from pytest_kvquant.inputs import geometry
from pytest_kvquant.inputs.model import Model, read_model
from pytest_kvquant.matrix import Pair
from pytest_kvquant.quality.effective_types import Explanation, explain

ROOT = Path(__file__).parents[2]

CHILD = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from pytest_kvquant.engine.child import abi, context
from pytest_kvquant.engine import census
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.child.library_files import loaded_files

job = json.loads(sys.argv[2])
library = LoadedLibrary(None)
model = context.LoadedModel(library, job["model"], gpu_layers=0)
window = library.llama.llama_model_n_swa(model.pointer) > 0
context.FLASH_ATTENTION_ENABLED = job["flash"]
tokens, sequences = job["tokens"], job["sequences"]
cell = context.Context(
    model, type_k=job["k"], type_v=job["v"], ctx=256, sequences=sequences,
    batch=256, ubatch=256, threads=1, unified=job["unified"],
)
sizes = []
for start, stop in ((0, tokens // 2), (tokens // 2, tokens)):
    span = np.arange(start, stop, dtype=np.int32)
    cell.decode(
        np.tile(span + 1, sequences), np.tile(span, sequences),
        np.repeat(np.arange(sequences, dtype=np.int32), len(span)),
        np.zeros(len(span) * sequences, np.int8),
    )
    sizes.append(int(library.llama.llama_state_seq_get_size(cell.pointer, 0)))
state = census.sequence_state(library.llama, cell.pointer, sequences - 1)
found = census.read(state, library.types, window=window)
first = found.caches[0]
print(json.dumps({
    "census": found,
    "types": library.types,
    "sizes": sizes,
    "positions": census.positions(state, first).tolist(),
    "empty_rows": int((census.key_rows(state, first, first.layers[0]) == 0).all(axis=1).sum()),
    "abi": abi.check(library.handle, library.llama),
    "fits": abi.fitting_releases(library.handle),
    "mixture": abi.mixture(library.path, loaded_files(library.path.resolve().parent)),
}))
"""


def take(model: Path, pair: Pair, **job: Any) -> dict[str, Any]:
    """Run one cell in a child; everything it found, as plain data."""
    defaults = {"tokens": 12, "sequences": 1, "unified": False, "flash": 1}
    asked = {**defaults, "model": str(model), "k": pair.k, "v": pair.v, **job}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(ROOT), json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    answer: dict[str, Any] = json.loads(child.stdout)
    return answer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    small = {"n_vocab": 300, "n_embd": 64, "n_ff": 64}
    shapes = {
        "plain": Tiny(**small, n_head=4, n_head_kv=2, head_dim=64),
        "one head of eight": Tiny(**small, n_head=8, n_head_kv=1, head_dim=128),
        "odd head": Tiny(**small, n_head=2, n_head_kv=2, head_dim=80),
        "window": Tiny(
            arch="gemma3", **small, n_layer=3, window_period=3, n_head=2, n_head_kv=1, head_dim=32
        ),
        "hybrid": Tiny(arch="lfm2", **small, n_head=1, n_head_kv=1, head_dim=64),
    }
    return {
        name: write(folder / f"{name.replace(' ', '-')}.gguf", shape)
        for name, shape in shapes.items()
    }


def explained(model: Model, pair: Pair, found: dict[str, Any]) -> Explanation:
    expected = geometry.expect(model, pair, found["types"])
    return explain(msgspec.convert(found["census"], Census), expected, found["types"])


@pytest.mark.parametrize(
    ("name", "pair", "bytes_per_token"),
    [
        ("plain", Pair("q8_0", "q4_0"), 2 * (136 + 72)),
        ("plain", Pair("q4_0", "q5_1"), 2 * (72 + 96)),
        ("one head of eight", Pair("q5_1", "f16"), 2 * (96 + 256)),
        ("odd head", Pair("f16", "f16"), 2 * (320 + 320)),
        ("window", Pair("q8_0", "q4_0"), 3 * (34 + 18)),
        ("hybrid", Pair("q4_0", "q8_0"), 36 + 68),
    ],
    ids=str,
)
def test_the_cache_is_what_the_header_says(
    name: str, pair: Pair, bytes_per_token: int, models: dict[str, Path]
) -> None:
    found = take(models[name], pair)
    read = msgspec.convert(found["census"], Census)
    assert read.problem is None
    assert read.bytes_per_token == bytes_per_token
    assert explained(read_model(models[name]), pair, found).kind == "agree"
    assert found["positions"] == list(range(12))
    assert found["empty_rows"] == 0
    assert {(layer.k_type, layer.v_type) for cache in read.caches for layer in cache.layers} == {
        tuple(pair)
    }


def test_growth_between_two_sizes_is_rows_and_bookkeeping(models: dict[str, Path]) -> None:
    found = take(models["plain"], Pair("q8_0", "q4_0"))
    read = msgspec.convert(found["census"], Census)
    grown = census.growth((6, 12), (found["sizes"][0], found["sizes"][1]))
    assert grown == (read.bytes_per_token or 0) + read.caches[0].cell_bytes


@pytest.mark.parametrize(("unified", "streams"), [(True, 1), (False, 3)])
def test_several_sequences(unified: bool, streams: int, models: dict[str, Path]) -> None:
    found = take(models["plain"], Pair("q8_0", "q8_0"), sequences=3, unified=unified)
    read = msgspec.convert(found["census"], Census)
    assert (read.caches[0].streams, read.caches[0].cells) == (streams, 12)
    assert explained(read_model(models["plain"]), Pair("q8_0", "q8_0"), found).kind == "agree"


def test_window_and_recurrent_parts_are_told_apart(models: dict[str, Path]) -> None:
    window = msgspec.convert(
        take(models["window"], Pair("f16", "f16"), tokens=100)["census"], Census
    )
    assert [(cache.kind, len(cache.layers)) for cache in window.caches] == [
        ("base", 1),
        ("window", 2),
    ]
    assert window.caches[0].cells == 100
    assert 64 <= window.caches[1].cells <= 100
    hybrid = msgspec.convert(take(models["hybrid"], Pair("f16", "f16"))["census"], Census)
    assert [cache.kind for cache in hybrid.caches] == ["base"]
    assert hybrid.recurrent_bytes > 0


def test_without_flash_attention_v_is_transposed(models: dict[str, Path]) -> None:
    found = take(models["plain"], Pair("q8_0", "f16"), flash=0)
    read = msgspec.convert(found["census"], Census)
    assert read.caches[0].v_transposed
    assert read.caches[0].bytes_per_token == 2 * (136 + 256)


def test_another_type_than_asked_for_is_found(models: dict[str, Path]) -> None:
    """The worker asks for one pair, the run believes in another."""
    found = take(models["plain"], Pair("q8_0", "f16"))
    said = explained(read_model(models["plain"]), Pair("q8_0", "q4_0"), found)
    assert said == ("substituted", "V is f16 instead of q4_0 on layers 0-1")


def test_the_installed_bindings_fit_their_own_library(models: dict[str, Path]) -> None:
    found = take(models["plain"], Pair("f16", "f16"))
    assert found["abi"] == []
    assert found["mixture"] is None
    assert found["fits"] == [] or found["fits"][-1].startswith("0.3.")
