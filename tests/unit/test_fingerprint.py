"""The hash over a model's files: every byte counts, and is read once per state of a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kvquant.inputs.fingerprint import fingerprint


class Told:
    """Remembers what was hashed."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def __call__(self, file: Path, _size: int) -> None:
        self.files.append(file.name)


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    files = [tmp_path / name for name in ("a.gguf", "b.gguf")]
    for file in files:
        file.write_bytes(file.name.encode() * 5_000_000)
    return files


def test_any_byte_of_any_shard_counts(shards: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "hashes"
    first = fingerprint(shards, cache)
    assert len(bytes.fromhex(first)) == 8
    for file in shards:
        content = file.read_bytes()
        for at in (0, len(content) // 3, len(content) - 1):
            changed = bytearray(content)
            changed[at] ^= 1
            file.write_bytes(changed)
            assert fingerprint(shards, cache) != first
        file.write_bytes(content)
        assert fingerprint(shards, cache) == first
    assert fingerprint(shards[::-1], cache) != first
    assert fingerprint(shards[:1], cache) != first


def test_an_unchanged_file_is_not_read_again(shards: list[Path], tmp_path: Path) -> None:
    cache, told = tmp_path / "hashes", Told()
    first = fingerprint(shards, cache, told)
    assert told.files == ["a.gguf", "b.gguf"]
    assert fingerprint(shards, cache, told) == first
    assert told.files == ["a.gguf", "b.gguf"]


def test_a_change_with_the_old_time_of_change_is_noticed(
    shards: list[Path], tmp_path: Path
) -> None:
    cache = tmp_path / "hashes"
    first, file = fingerprint(shards, cache), shards[1]
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[4_000_000] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fingerprint(shards, cache) != first


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sha256": 3}', '{"sha256": "zz"}', "\x00"])
def test_a_damaged_entry_is_not_believed(content: str, shards: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "hashes"
    first = fingerprint(shards, cache)
    for entry in cache.iterdir():
        entry.write_text(content)
    assert fingerprint(shards, cache) == first


def test_a_cache_that_cannot_be_written_is_none(shards: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = Told()
    for _ in range(2):
        fingerprint(shards, tmp_path / "file" / "hashes", told)
    assert len(told.files) == 4
    assert fingerprint(shards, None) == fingerprint(shards, tmp_path / "hashes")
