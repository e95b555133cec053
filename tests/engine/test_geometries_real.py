"""Geometries that were wrong once: what a header means is what the library's own f16 cache holds.

The library is asked which tensors it wants of an architecture (``tools/zoo_survey``), gets random
ones, opens the file and decodes a few tokens: the file is real, and so is the cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_kvquant.engine.census_record import Census
from pytest_kvquant.inputs import geometry
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.effective_types import expected_by, explain

ROOT = Path(__file__).parents[2]

ARCHITECTURES = (
    "gemma4",  # layers that share a cache, two sizes of heads
    "gemma3n",  # twenty layers have a cache of their own, whatever the header says
    "deepseek2", "mistral4",  # latent attention: no V
    "deepseek32", "glm-dsa", "hy_v4",  # latent, and a cache of an indexer's keys
    "glm5-next",  # an indexer that also stores gates and pooled keys
    "dots3note",  # latent, an indexer, and windows
    "minimax-m3",  # an indexer that allocates V rows
    "qwen4exp",  # an indexer between recurrent layers
    "kimi-linear", "kimi-k3", "bailingmoe3",  # latent layers between recurrent ones
    "qwen3next", "qwen35moe", "jamba", "granitehybrid", "plamo2",  # recurrent layers
    "nemotron_h",  # layers of a feed-forward block alone
    "lfm2", "cohere2", "gpt-oss",  # windows
)  # fmt: skip

CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from pytest_kvquant.engine import census
from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.library import LoadedLibrary
from tools.zoo_survey.ask import build

library = LoadedLibrary(None)
print(json.dumps(library.types), flush=True)
for name in sys.argv[2:]:
    path = Path(sys.argv[1]) / f"{name}.gguf"
    assert build(library, name, path), name
    model = LoadedModel(library, str(path), gpu_layers=0)
    cell = Context(
        model, type_k="f16", type_v="f16", ctx=256, sequences=1, batch=32, ubatch=32, threads=1
    )
    span = np.arange(8, dtype=np.int32)
    cell.decode(span + 1, span, span * 0, np.zeros(8, np.int8))
    state = census.sequence_state(library.llama, cell.pointer, 0)
    window = library.llama.llama_model_n_swa(model.pointer) > 0
    print(json.dumps([name, census.read(state, library.types, window=window)]), flush=True)
"""


class Opened:
    """The censuses of all, by one process of the library."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ran = subprocess.run(
            [sys.executable, "-c", CHILD, str(folder), *ARCHITECTURES],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        first, *others = [json.loads(line) for line in ran.stdout.splitlines()]
        self.types: dict[str, Any] = first
        self.censuses = {name: msgspec.convert(one, Census) for name, one in others}
        self.said = ran.stderr[-500:]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(tmp_path_factory.mktemp("geometries"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_header_says_what_the_library_stores(opened: Opened, architecture: str) -> None:
    assert architecture in opened.censuses, opened.said
    found = opened.censuses[architecture]
    assert found.problem is None
    model = read_model(opened.folder / f"{architecture}.gguf")
    expected = geometry.expect(model, REFERENCE, opened.types)
    stored = sum(layer.k_row + layer.v_row for one in found.caches for layer in one.layers)
    assert expected.bytes_per_token == stored
    assert explain(found, expected, opened.types).kind == "agree"
    quantized = expected_by(model, Pair("q8_0", "q8_0"), found, REFERENCE, opened.types)
    assert quantized.source == "header"
