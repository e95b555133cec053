"""The members of the zoo: what they cover, and that the same declaration gives the same file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from pytest_kvquant.zoo.declaration import Member
from pytest_kvquant.zoo.members import ALL, HANDFUL, by_name
from pytest_kvquant.zoo.store import file_of
from pytest_kvquant.zoo.vocabulary import bytes_only
from pytest_kvquant.zoo.writer import write

names = pytest.mark.parametrize("member", ALL, ids=lambda member: member.name)


def test_every_head_size_and_grouping_has_a_member() -> None:
    sizes = {(member.head_k, member.head_v) for member in ALL}
    assert {64, 80, 96, 112, 128, 256, 512} <= {k for k, v in sizes if k == v}
    assert {(192, 128), (320, 256), (576, 512)} <= sizes
    assert {1, 2, 4, 5, 7, 8, 16} <= {member.group for member in ALL}
    assert len({member.name for member in ALL}) == len(ALL)


def test_the_handful_has_the_features_that_break_most() -> None:
    features = {feature for name in HANDFUL for feature in by_name(name).features}
    assert {"window", "sinks", "softcap", "latent attention", "grouping", "rope"} <= features
    with pytest.raises(KeyError):
        by_name("llama-129")


@names
def test_windows_cut_what_a_run_of_300_tokens_sees(member: Member) -> None:
    assert ("window" in member.features) == (0 < member.window < 150)


@names
def test_the_header_says_what_the_declaration_says(member: Member, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(write(tmp_path / "m.gguf", member))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    at = f"{member.architecture}.attention"
    heads, kv_heads = fields[f"{at}.head_count"], fields[f"{at}.head_count_kv"]
    least = min(kv_heads) if isinstance(kv_heads, list) else kv_heads
    assert heads // least == member.group
    share = fields[f"{member.architecture}.embedding_length"] // heads
    assert fields.get(f"{at}.key_length", share) == member.head_k
    assert fields.get(f"{at}.value_length", share) == member.head_v
    assert fields["tokenizer.ggml.add_bos_token"] == member.bos
    assert len(reader.tensors) == len(member.tensors)
    for tensor, meant in zip(reader.tensors, member.tensors, strict=True):
        assert tuple(int(n) for n in reversed(tensor.shape)) == meant.shape
        if np.prod(meant.shape) >= 256:
            spread = float(np.std(np.asarray(tensor.data, np.float32)))
            assert spread == pytest.approx(meant.std, rel=0.2)


def test_a_file_is_written_once_and_again_where_its_declaration_changed(tmp_path: Path) -> None:
    member = by_name("llama-112")
    first = file_of(member, tmp_path / "zoo")
    content, written = first.read_bytes(), first.stat().st_mtime_ns
    assert file_of(member, tmp_path / "zoo") == first
    assert first.stat().st_mtime_ns == written
    assert write(tmp_path / "again.gguf", member).read_bytes() == content
    other = file_of(member._replace(seed=1), tmp_path / "zoo")
    assert other != first
    assert other.read_bytes() != content
    assert sorted((tmp_path / "zoo").iterdir()) == sorted([first, other])


def test_a_vocabulary_too_small_for_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="need 258"):
        bytes_only(257)
