"""GGUF headers: what a model says, and what is refused before anything is loaded."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lying import HONEST, lies, mutated, packed
from support.splitting import split
from support.tinygguf import Tiny, write

from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.errors import ModelError
from pytest_kvquant.inputs.attention import attention_facts
from pytest_kvquant.inputs.beyond import warnings
from pytest_kvquant.inputs.model import read_header, read_model

SMALL = Tiny(n_vocab=300, n_embd=32, n_layer=2, n_head=4, n_head_kv=2, head_dim=32, n_ff=32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "tiny.gguf", SMALL)


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def header_only(path: Path, architecture: str, **keys: object) -> Path:
    """A GGUF file with one tensor of one element."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    for name, value in keys.items():
        kind = {bool: writer.add_bool, list: writer.add_array}
        add = kind.get(type(value), writer.add_uint32)
        add(f"{architecture}.{name.replace('__', '.')}", value)
    writer.add_tensor("token_embd.weight", np.zeros((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class TestWhatItSays:
    def test_geometry(self, tiny: Path) -> None:
        found = read_model(tiny)
        assert (found.name, found.architecture) == ("tiny-qwen3", "qwen3")
        assert (found.n_layer, found.n_embd, found.n_head) == (2, 32, 4)
        assert found.n_head_kv == (2, 2)
        assert (found.head_dim_k, found.head_dim_v) == (32, 32)
        assert (found.context_trained, found.size) == (4096, tiny.stat().st_size)
        assert found.causal

    def test_layers_without_a_cache_have_no_heads(self, tmp_path: Path) -> None:
        shape = Tiny(
            arch="lfm2", n_vocab=300, n_layer=4, n_embd=64, n_head=1, n_head_kv=1, head_dim=64,
            n_ff=32,
        )  # fmt: skip
        assert read_model(write(tmp_path / "m.gguf", shape)).n_head_kv == (0, 1, 0, 1)

    def test_a_head_dimension_that_is_not_told_is_the_embedding_s_share(
        self, tmp_path: Path
    ) -> None:
        found = read_model(header_only(tmp_path / "m.gguf", "llama"))
        assert (found.head_dim_k, found.head_dim_v) == (16, 16)
        assert found.n_head_kv == (4, 4)
        assert found.context_trained == 0

    def test_layers_with_a_window(self, tmp_path: Path, tiny: Path) -> None:
        shape = Tiny(arch="gemma3", n_vocab=300, n_layer=4, window=64, window_period=3)
        found = read_model(write(tmp_path / "m.gguf", shape))
        assert (found.window, found.windowed) == (64, (True, True, False, True))
        assert (read_model(tiny).window, read_model(tiny).windowed) == (0, ())

    @pytest.mark.parametrize(
        ("architecture", "keys", "window", "windowed"),
        [
            ("gpt-oss", {"sliding_window": 128}, 128, (True, False)),
            ("gpt-oss", {"sliding_window": 128, "sliding_window_pattern": 1}, 128, (False, False)),
            ("gpt-oss", {"sliding_window": 128, "sliding_window_pattern": 0}, 128, (True, True)),
            ("gemma2", {}, 4096, (True, False)),
            ("gemma3", {}, 0, ()),
            ("llama4", {"sliding_window": 0}, 0, ()),
            ("gemma4", {"sliding_window": 512, "sliding_window_pattern": [False, True]}, 512,
             (False, True)),
            ("gemma4", {"sliding_window": 512, "sliding_window_pattern": [True]}, 512, None),
            ("llama", {"sliding_window": 4096}, 4096, None),
            ("unheard-of", {"sliding_window": 64, "sliding_window_pattern": 2}, 64, None),
        ],
    )  # fmt: skip
    def test_windows_as_llama_cpp_loads_them(
        self,
        tmp_path: Path,
        architecture: str,
        keys: dict[str, object],
        window: int,
        windowed: tuple[bool, ...] | None,
    ) -> None:
        attention = {f"attention__{name}": value for name, value in keys.items()}
        found = read_model(header_only(tmp_path / "m.gguf", architecture, **attention))
        assert (found.window, found.windowed) == (window, windowed)

    def test_the_embedded_model(self) -> None:
        found = read_model(EMBEDDED_MODEL)
        assert found.head_dim_k % 32 == 0
        assert found.context_trained >= 512

    def test_the_fingerprint_sees_weights_and_header(self, tiny: Path, tmp_path: Path) -> None:
        same = write(tmp_path / "same.gguf", SMALL)
        other = write(tmp_path / "other.gguf", Tiny(**{**vars(SMALL), "seed": 1}))
        assert read_model(same).fingerprint == read_model(tiny).fingerprint
        assert read_model(other).fingerprint != read_model(tiny).fingerprint


class TestRefusals:
    def test_missing(self, tmp_path: Path) -> None:
        assert "does not exist; give a GGUF file with --kv-model" in refused(tmp_path / "m.gguf")

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "holds no GGUF model" in refused(tmp_path)

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "m.gguf").touch()
        assert "is empty; give a GGUF file with --kv-model" in refused(tmp_path / "m.gguf")

    def test_not_gguf(self, tmp_path: Path) -> None:
        (tmp_path / "m.gguf").write_bytes(b"hello, world" + bytes(100))
        assert "is not a GGUF file (it starts with b'hell" in refused(tmp_path / "m.gguf")
        (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04" + bytes(100))
        assert "is a PyTorch checkpoint" in refused(tmp_path / "m.gguf")

    def test_unreadable(self) -> None:
        unreadable = Path("/proc/self/mem")
        if not unreadable.is_file():
            pytest.skip("no /proc here")
        assert "cannot be read" in refused(unreadable)

    def test_truncated_weights(self, tiny: Path, tmp_path: Path) -> None:
        whole = tiny.read_bytes()
        (tmp_path / "m.gguf").write_bytes(whole[:-1000])
        assert f"its tensors need {len(whole):,} bytes, the file has" in refused(
            tmp_path / "m.gguf"
        )

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_truncated_anywhere(
        self, tiny: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        whole = tiny.read_bytes()
        size = data.draw(st.one_of(st.integers(4, 400), st.integers(400, len(whole) - 1)))
        path = tmp_path_factory.mktemp("cut") / "m.gguf"
        path.write_bytes(whole[:size])
        assert "download or convert it again" in refused(path)

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_damaged_anywhere_is_read_or_refused_in_words(
        self, tiny: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        content = bytearray(tiny.read_bytes())
        header = content.index(b"blk.0.attn_norm.weight") + 200
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(4, header))] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.mktemp("damaged") / "m.gguf"
        path.write_bytes(content)
        with suppress(ModelError):
            read_model(path)

    def test_an_absurd_number_of_tokens_is_noticed_at_once(
        self, tiny: Path, tmp_path: Path
    ) -> None:
        content = bytearray(tiny.read_bytes())
        count = content.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
        assert int.from_bytes(content[count : count + 8], "little") == SMALL.n_vocab
        content[count + 6] = 1
        (tmp_path / "m.gguf").write_bytes(content)
        assert "header is damaged" in refused(tmp_path / "m.gguf")

    def test_an_absurd_number_of_layers_is_noticed_at_once(
        self, tiny: Path, tmp_path: Path
    ) -> None:
        content = bytearray(tiny.read_bytes())
        count = content.index(b"qwen3.block_count") + len(b"qwen3.block_count") + 4
        content[count + 3] = 255
        (tmp_path / "m.gguf").write_bytes(content)
        assert "claims 4,278,190,082 layers" in refused(tmp_path / "m.gguf")

    @pytest.mark.parametrize(
        ("architecture", "keys"),
        [("bert", {}), ("nomic-bert", {}), ("qwen3", {"pooling_type": 3}),
         ("llama", {"attention__causal": False}), ("t5encoder", {})],
    )  # fmt: skip
    def test_embedding_only(
        self, architecture: str, keys: dict[str, object], tmp_path: Path
    ) -> None:
        path = header_only(tmp_path / "m.gguf", architecture, **keys)
        assert "computes embeddings, not next-token probabilities" in refused(path)

    def test_a_header_without_geometry(self, tmp_path: Path) -> None:
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
        writer.add_tensor("token_embd.weight", np.zeros((1, 1), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        assert "has no 'llama.block_count' in its header" in refused(tmp_path / "m.gguf")

    @pytest.mark.parametrize(("lie", "content"), list(lies()), ids=[name for name, _ in lies()])
    def test_a_lying_header_is_one_sentence_or_harmless(
        self, lie: str, content: bytes, tmp_path: Path
    ) -> None:
        path = tmp_path / "m.gguf"
        path.write_bytes(content)
        said = told(path)
        assert said.isprintable(), lie
        assert len(said) < 500

    @pytest.mark.slow
    def test_five_thousand_mutations(self, tmp_path: Path) -> None:
        whole = packed(HONEST)
        path = tmp_path / "m.gguf"
        read = 0
        for seed in range(5_000):
            path.write_bytes(mutated(whole, seed, len(whole) - HONEST.data))
            said = told(path)
            read += not said
            assert said.isprintable(), seed
        assert 100 < read < 4_900


def told(path: Path) -> str:
    """What is said of the file; empty where it is read."""
    try:
        model = read_model(path)
        attention_facts(model)
        warnings(model, read_header(path), 1 << 20, {})
    except ModelError as error:
        return str(error)
    return ""


class TestFilesThatAreNoModels:
    def test_a_git_lfs_pointer(self, tmp_path: Path) -> None:
        (tmp_path / "m.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid x\n")
        assert "is a Git LFS pointer" in refused(tmp_path / "m.gguf")

    def test_a_vocabulary(self, tmp_path: Path) -> None:
        shape = replace(SMALL, n_layer=1)
        path = write(tmp_path / "m.gguf", shape)
        reader = gguf.GGUFReader(path)
        alone = gguf.GGUFWriter(tmp_path / "vocab.gguf", "qwen3")
        alone.add_token_list(reader.fields["tokenizer.ggml.tokens"].contents())
        alone.write_header_to_file()
        alone.write_kv_data_to_file()
        alone.write_tensors_to_file()
        alone.close()
        assert "holds a vocabulary and no weights" in refused(tmp_path / "vocab.gguf")

    @pytest.mark.parametrize(
        ("architecture", "kind", "what"),
        [("llama", "adapter", "is an adapter (LoRA)"), ("clip", "mmproj", "projector (mmproj)"),
         ("llada", "model", "is a diffusion model"), ("eagle3", "model", "is a draft model"),
         ("mamba2", "model", "no KV cache")],
    )  # fmt: skip
    def test_of_another_kind(self, architecture: str, kind: str, what: str, tmp_path: Path) -> None:
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", architecture)
        writer.add_type(kind)
        writer.add_tensor("t", np.zeros((1, 1), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        assert what in refused(tmp_path / "m.gguf")


class TestSplitModels:
    @pytest.fixture
    def shards(self, tiny: Path, tmp_path: Path) -> list[Path]:
        return split(tiny, tmp_path, 3)

    def test_any_file_stands_for_all(self, tiny: Path, shards: list[Path]) -> None:
        found = [read_model(shard) for shard in shards]
        assert found[0] == found[1] == found[2]
        assert found[0].path == str(shards[0])
        assert found[0].files == tuple(map(str, shards))
        assert found[0].size == sum(shard.stat().st_size for shard in shards)
        assert found[0].caches == read_model(tiny).caches

    def test_every_file_counts(self, shards: list[Path]) -> None:
        before = read_model(shards[0]).fingerprint
        content = bytearray(shards[2].read_bytes())
        content[-1] ^= 1
        shards[2].write_bytes(content)
        assert read_model(shards[0]).fingerprint != before

    def test_a_missing_or_truncated_one_is_named(self, shards: list[Path]) -> None:
        content = shards[1].read_bytes()
        shards[1].write_bytes(content[:-64])
        assert f"the tensors of {shards[1].name} need" in refused(shards[0])
        shards[1].unlink()
        assert f"{shards[1].name} is missing" in refused(shards[0])
        shards[0].rename(shards[0].with_name("first.gguf"))
        assert "was renamed" in refused(shards[0].with_name("first.gguf"))


def test_a_number_of_layers_above_the_model_s_asks_for_all() -> None:
    """``-ngl 99`` is how most people write it; the last layer's output counts as one more."""
    model = read_model(EMBEDDED_MODEL)
    found = [model.holds(layers) for layers in (-1, 0, model.n_layer, model.n_layer + 1, 99)]
    assert found == [True, False, False, True, True]
