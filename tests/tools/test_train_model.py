"""The recipe of the embedded model, on a microscopic one; without torch only its numbers."""

from __future__ import annotations

import importlib.util
import inspect
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "pytest_kvquant" / "data" / "kvq-mini-6m.q8_0.gguf"
NEEDS = {
    "torch": "the recipe trains with torch; see tools/train_model/requirements.txt",
    "tokenizers": "the recipe makes its tokenizer with tokenizers",
    "gguf": "the recipe writes its file with gguf",
}


@pytest.fixture(autouse=True, scope="module")
def _tools_importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield


@pytest.fixture(scope="module")
def libraries() -> dict[str, Any]:
    return {name: pytest.importorskip(name, reason=reason) for name, reason in NEEDS.items()}


@pytest.fixture(scope="module")
def micro(libraries: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer, trained for two steps by the command line."""
    from tools.train_model import __main__ as cli
    from tools.train_model.recipe import RECIPES, Recipe, Schedule, Shape

    shape = Shape(
        vocab_size=300, n_layer=1, n_embd=32, n_head=2, n_head_kv=1, n_ff=64, n_ctx=64, head_dim=32
    )
    schedule = Schedule(
        steps=2, tokens_per_step=64, short_context=16, long_context=64, warmup_steps=1
    )
    folder = tmp_path_factory.mktemp("micro")
    corpus = folder / "corpus.txt"
    sources = (inspect.getsource(module) for module in (inspect, textwrap))
    corpus.write_text("\n\0\n".join(sources), encoding="utf-8")
    out = folder / "new" / "micro.gguf"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "kvq-tiny", Recipe(shape, schedule))
        arguments = ["--recipe", "kvq-tiny", "--device", "cpu", "--threads", "1"]
        assert cli.main(["train", "--corpus", str(corpus), "--out", str(out), *arguments]) == 0
    return out


def read(gguf: Any, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The metadata of a file, and its tensors' types by name, both in file order."""
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    return fields, {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}


def test_the_learning_rate_warms_up_peaks_and_ends_near_zero() -> None:
    from tools.train_model.recipe import RECIPES

    schedule = RECIPES["kvq-mini"].schedule
    rates = [schedule.learning_rate(step) for step in range(schedule.steps)]

    assert rates[0] == pytest.approx(schedule.peak_lr / schedule.warmup_steps)
    assert max(rates) == rates[schedule.warmup_steps] == schedule.peak_lr
    assert rates[schedule.warmup_steps :] == sorted(rates[schedule.warmup_steps :], reverse=True)
    assert 0.0 < rates[-1] < schedule.peak_lr * 1e-5


def test_fifteen_percent_of_the_steps_are_long() -> None:
    from tools.train_model.recipe import RECIPES

    schedule = RECIPES["kvq-mini"].schedule
    contexts = [schedule.context(step) for step in range(schedule.steps)]

    assert contexts.count(4_096) == 600
    assert contexts.count(1_024) == 3_400
    assert 4_096 in contexts[:10]
    assert 4_096 in contexts[-10:]


@pytest.mark.parametrize("name", ["kvq-mini", "kvq-tiny"])
def test_a_step_is_whole_windows_that_fit_the_model(name: str) -> None:
    from tools.train_model.recipe import RECIPES

    recipe = RECIPES[name]
    for context in (recipe.schedule.short_context, recipe.schedule.long_context):
        assert recipe.schedule.tokens_per_step % context == 0
        assert context <= recipe.shape.n_ctx


def test_the_file_carries_the_keys_of_the_embedded_one(
    libraries: dict[str, Any], micro: Path
) -> None:
    fields, tensors = read(libraries["gguf"], micro)
    embedded_fields, embedded_tensors = read(libraries["gguf"], EMBEDDED)

    assert list(fields) == list(embedded_fields)
    one_layer = {
        name: kind
        for name, kind in embedded_tensors.items()
        if not name.startswith(("blk.1.", "blk.2.", "blk.3."))
    }
    assert list(tensors.items()) == list(one_layer.items())


def test_the_metadata_tells_the_shape_and_the_tokenizer(
    libraries: dict[str, Any], micro: Path
) -> None:
    fields, _ = read(libraries["gguf"], micro)

    assert fields["general.architecture"] == "qwen3"
    assert fields["general.name"] == "kvq-tiny"
    assert fields["general.file_type"] == libraries["gguf"].LlamaFileType.MOSTLY_Q8_0
    assert fields["qwen3.block_count"] == 1
    assert fields["qwen3.attention.head_count"] == 2
    assert fields["qwen3.attention.head_count_kv"] == 1
    assert fields["qwen3.attention.key_length"] == fields["qwen3.attention.value_length"] == 32
    assert fields["tokenizer.ggml.model"] == "gpt2"
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert fields["tokenizer.ggml.tokens"][0] == "<|endoftext|>"
    assert fields["tokenizer.ggml.token_type"] == [3] + [1] * 299
    assert len(fields["tokenizer.ggml.merges"]) == 300 - 256 - 1
    assert fields["tokenizer.ggml.bos_token_id"] == fields["tokenizer.ggml.eos_token_id"] == 0
    assert fields["tokenizer.ggml.add_bos_token"] is False


def test_training_lowers_the_loss(libraries: dict[str, Any]) -> None:
    from tools.train_model.model import Decoder
    from tools.train_model.recipe import Schedule, Shape
    from tools.train_model.train import train

    torch = libraries["torch"]
    torch.manual_seed(0)
    shape = Shape(
        vocab_size=8, n_layer=1, n_embd=32, n_head=2, n_head_kv=1, n_ff=64, n_ctx=32, head_dim=32
    )
    schedule = Schedule(
        steps=60, tokens_per_step=128, short_context=16, long_context=32, warmup_steps=3, dropout=0
    )
    model = Decoder(shape, schedule.dropout)
    lines: list[str] = []

    losses = train(model, torch.arange(400) % 8, schedule, seed=0, report=lines.append)

    assert losses[0] == pytest.approx(math.log(8), abs=0.3)  # no idea yet
    assert losses[-1] < 0.5
    assert lines[-1].startswith("step    59  loss ")


def test_the_decoder_sees_no_token_ahead(libraries: dict[str, Any]) -> None:
    from tools.train_model.model import Decoder
    from tools.train_model.recipe import RECIPES

    torch = libraries["torch"]
    model = Decoder(replace(RECIPES["kvq-tiny"].shape, vocab_size=16, n_ctx=8)).eval()
    tokens = torch.arange(8)[None]
    other = tokens.clone()
    other[0, 5] = 15

    with torch.inference_mode():
        first, second = model(tokens)[0], model(other)[0]

    torch.testing.assert_close(first[:5], second[:5])
    assert not torch.allclose(first[5:], second[5:])


def test_a_corpus_too_small_for_its_vocabulary_is_refused(libraries: dict[str, Any]) -> None:
    from tools.train_model.tokenizer import train_tokenizer

    with pytest.raises(ValueError, match=r"yields \d+ entries, not 8192"):
        train_tokenizer(["a few words"], 8_192)


def test_a_literal_end_of_text_is_text(libraries: dict[str, Any]) -> None:
    from tools.train_model.tokenizer import encode_stream, train_tokenizer

    document = "a <|endoftext|> b"
    tokenizer = train_tokenizer([document], 260)
    stream = encode_stream(tokenizer, [document, document]).tolist()

    assert [index for index, token in enumerate(stream) if token == 0] == [0, len(stream) // 2]


def test_a_stream_too_short_for_a_window_is_refused(libraries: dict[str, Any]) -> None:
    from tools.train_model.train import sample

    torch = libraries["torch"]
    with pytest.raises(ValueError, match="has 16 tokens; a window takes 17"):
        sample(torch.arange(16), 1, 16, torch.Generator())


def test_the_embedded_model_survives_a_round_trip_byte_for_byte(
    libraries: dict[str, Any], tmp_path: Path
) -> None:
    from tools.train_model.gguf_file import export, load

    model, shape, tokenizer = load(EMBEDDED)
    export(tmp_path / "again.gguf", "kvq-mini", model, shape, tokenizer)

    assert (tmp_path / "again.gguf").read_bytes() == EMBEDDED.read_bytes()


def test_the_embedded_model_has_the_shape_of_the_recipe(libraries: dict[str, Any]) -> None:
    from tools.train_model.gguf_file import load
    from tools.train_model.recipe import RECIPES

    _, shape, _ = load(EMBEDDED)

    expected = RECIPES["kvq-mini"].shape
    assert replace(shape, norm_eps=expected.norm_eps) == expected
    assert shape.norm_eps == pytest.approx(expected.norm_eps)


def test_llama_cpp_computes_the_same_logits(libraries: dict[str, Any], micro: Path) -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama_cpp is not installed")
    command = [sys.executable, "-m", "tools.train_model", "verify", str(micro)]
    arguments = ["--text", __file__, "--tokens", "64", "--threads", "1"]
    search_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": search_path}
    environment.pop("LLAMA_CPP_LIB_PATH", None)

    done = subprocess.run(
        [*command, *arguments],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "64 tokens, the same in llama.cpp" in done.stdout
