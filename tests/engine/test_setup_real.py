"""Options of llama.cpp that really reach it, on the embedded model."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from support.run import measure, run, start

from pytest_kvquant.config.setup import parse_words
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.errors import ModelError, RunRefused

QUERIES = "blk.0.attn_q.weight"
FEW = {"decode": 0, "trajectory": 0, "chunks": 2}


def ppl(tmp_path: Path, words: str) -> float:
    result = measure(tmp_path, "q8_0/q8_0", setup=parse_words(words), **FEW)
    (cell,) = (one for one in result.cells if one.pair == "q8_0/q8_0")
    assert cell.message is None, cell.message
    assert cell.quality is not None
    assert result.settings.setup.keys() == parse_words(words).keys()
    return cell.quality.prefill.ppl


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> float:
    return ppl(tmp_path_factory.mktemp("usual"), "")


@pytest.mark.parametrize(
    "words", ["--no-mmap --swa-full -kvu --no-op-offload -np 8 -ot ffn=CPU --numa distribute",
              "-np 3", "-np 2 --mlock -sm layer -mg 0 -ts 1 -ncmoe 2 -nkvo -tb 1 -fa auto"],
)  # fmt: skip
def test_options_that_change_no_figure(words: str, tmp_path: Path, usual: float) -> None:
    assert ppl(tmp_path, words) == pytest.approx(usual, rel=1e-4)


@pytest.mark.parametrize("words", ["-np 3 -kvu", "-np 3 --no-kv-unified"])
def test_the_oracle_knows_how_sequences_share_the_cache(words: str, tmp_path: Path) -> None:
    """Of the operations, too: some have streams, others have to be in a unified cache."""
    cells = run(tmp_path, "f16/f16", setup=parse_words(words), coverage="standard", **FEW)
    cell = cells["f16/f16"]
    assert cell.kernels is not None
    assert cell.kernels.scenarios
    assert {one.text for one in cell.checks if one.verdict == "fail"} == set()


@pytest.mark.parametrize(
    "words", ["--rope-freq-base 20000", "--rope-scaling linear --rope-scale 2",
              "--override-kv qwen3.attention.layer_norm_rms_epsilon=float:0.05"],
)  # fmt: skip
def test_options_that_change_the_model_show_in_its_perplexity(
    words: str, tmp_path: Path, usual: float
) -> None:
    assert abs(ppl(tmp_path, words) - usual) > 0.005 * usual


def adapter(path: Path) -> Path:
    """A LoRA adapter of rank 4 for the first layer's queries of the embedded model."""
    weight = next(
        one for one in gguf.GGUFReader(EMBEDDED_MODEL).tensors if one.name == QUERIES
    )  # fmt: skip
    taken, given = map(int, weight.shape)
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for end, shape in (("a", (4, taken)), ("b", (given, 4))):
        rows = 0.2 * rng.standard_normal(shape).astype(np.float32)
        writer.add_tensor(f"{QUERIES}.lora_{end}", rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_lora_adapters_are_applied_with_their_scales(tmp_path: Path, usual: float) -> None:
    first, second = adapter(tmp_path / "a.gguf"), adapter(tmp_path / "b.gguf")
    none = ppl(tmp_path / "none", f"--lora {first}:0.0,{second}:0.0")
    some = ppl(tmp_path / "some", f"--lora {first}:0.0 --lora-scaled {second}:0.7")
    assert none == pytest.approx(usual, rel=1e-4)
    assert some > 1.01 * usual


def test_a_control_vector_is_applied_with_its_scale(tmp_path: Path, usual: float) -> None:
    path = tmp_path / "v.gguf"
    writer = gguf.GGUFWriter(path, "controlvector")
    rng = np.random.default_rng(0)
    for layer in (1, 2):
        writer.add_tensor(f"direction.{layer}", rng.standard_normal(256).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    try:
        weak = ppl(tmp_path / "weak", f"--control-vector {path}:0.0")
        strong = ppl(tmp_path / "strong", f"--control-vector {path}:1.0")
    except ModelError as error:  # another width of the embedded model
        pytest.fail(str(error))
    assert weak == pytest.approx(usual, rel=1e-4)
    assert strong > 1.01 * usual


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-ot ffn=CUDA7", "has no such buffer type; it has CPU"),
        ("--lora absent.gguf", "absent.gguf: there is no such file"),
        ("--rpc 127.0.0.1:1", "has no RPC backend: build llama.cpp with -DGGML_RPC=ON"),
        ("--override-kv a=4", "write key=type:value"),
        ("-np 257", "parallel 257: this build holds 256 sequences at most"),
    ],
)
def test_what_this_build_has_not_is_one_line(words: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RunRefused) as caught:
        start(tmp_path, pairs=("q8_0/q8_0",), setup=parse_words(words), **FEW)
    assert said in str(caught.value)


def test_another_set_up_is_another_reference(tmp_path: Path) -> None:
    first = measure(tmp_path, "q8_0/q8_0", setup=parse_words("--rope-freq-base 20000"), **FEW)
    second = measure(tmp_path, "q8_0/q8_0", **FEW)
    assert first.reference.computed == second.reference.computed > 0
