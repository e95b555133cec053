"""The header reader: right where the file is honest, one bounded sentence where it is not."""

from __future__ import annotations

import re
import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lying import (
    HONEST,
    KEY,
    PACKAGE,
    READERS,
    RIGHT,
    Table,
    lies,
    mutated,
    packed,
    reads,
    scalar,
    with_key,
    with_tensor,
)

from pytest_kvquant.inputs.gguf_header import (
    BLOCKS,
    KEPT_ITEMS,
    Array,
    BadHeader,
    parse,
    read_header,
)
from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.zoo.members import by_name
from pytest_kvquant.zoo.writer import write

ALL_LIES = dict(lies())


def refusal(content: bytes) -> str:
    """What is said of the file; empty where it is read."""
    try:
        parse(content)
    except BadHeader as error:
        return str(error)
    return ""


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    known = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: known[kind] for kind in BLOCKS if kind in known} == {
        kind: sizes for kind, sizes in BLOCKS.items() if kind in known
    }
    assert len(BLOCKS.keys() & known.keys()) >= 30


def test_it_reads_what_the_gguf_package_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", by_name("gpt-oss-64"))
    ours, theirs = read_header(path), gguf.GGUFReader(path)
    names = {name for name in theirs.fields if not name.startswith("GGUF.")}
    assert ours.fields.keys() == names
    for name in names:
        value, meant = ours.fields[name], theirs.fields[name].contents()
        assert (list(value) if isinstance(value, tuple) else value) == meant, name
    assert [(t.name, t.shape, t.type) for t in ours.tensors] == [
        (t.name, tuple(int(n) for n in t.shape), int(t.tensor_type)) for t in theirs.tensors
    ]
    assert ours.data_at == theirs.data_offset
    assert path.stat().st_size - 32 < ours.expected_size <= path.stat().st_size


def test_long_lists_are_stepped_over() -> None:
    count = KEPT_ITEMS + 1
    tokens = b"".join(struct.pack("<Q", 1) + b"x" for _ in range(count))
    key = HONEST.keys[-1]._replace(packed=struct.pack("<IQ", 8, count) + tokens)
    assert parse(with_key(key)).fields["tokenizer.ggml.tokens"] == Array(count)


def test_a_weight_type_of_a_fork_has_no_known_end() -> None:
    assert parse(with_tensor(Table(b"t", (1 << 20,), 203, 0))).expected_size < 8192


@pytest.mark.parametrize("lie", ALL_LIES, ids=str)
def test_a_lie_is_one_bounded_sentence_or_read(lie: str) -> None:
    content = ALL_LIES[lie]
    tracemalloc.start()
    begun = time.process_time()
    said = refusal(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert said.isprintable()
    assert len(said) < 300
    assert peak < 1 << 20
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        ("18,446,744,073,709,551,615 keys", "claims 18,446,744,073,709,551,615 keys"),
        ("65,536 tokens", "ends inside the key 'tokenizer.ggml.tokens'"),
        ("version 50,331,648", "is a big-endian GGUF file"),
        ("version 4", "is a GGUF file of version 4; known are 2 and 3"),
        ("a key twice", "has the key 'llama.block_count' twice"),
        ("alignment 3", "'general.alignment' of 3, not a power of two"),
        ("a tensor at an odd place", "has the tensor 't' at the impossible offset 7"),
        ("a list of lists", "has the key 'llama.odd' with items of an unusable type (9)"),
        ("cut after 200 bytes", "ends inside"),
        ("cut after 0 bytes", "is not a GGUF file"),
    ],
)
def test_what_is_wrong_is_said(lie: str, sentence: str) -> None:
    with pytest.raises(BadHeader) as caught:
        parse(ALL_LIES[lie])
    assert sentence in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32))
def test_mutations_are_read_or_refused(seed: int) -> None:
    whole = packed(HONEST)
    assert refusal(mutated(whole, seed, len(whole) - HONEST.data)).isprintable()


def test_a_line_that_reads_a_key_is_its_declaration() -> None:
    for one in reads():
        assert re.fullmatch(KEY, one.key or ""), (
            f"{one.where}: write the whole key into the line, as '{{arch}}.block_count': headers "
            "that lie about it are made from it (tests/support/lying.py)"
        )
    assert len({one.key for one in reads()}) > 30


def test_every_way_to_read_a_key_has_its_lies() -> None:
    missing = set(READERS) - RIGHT.keys()
    assert not missing, f"tests/support/lying.py, RIGHT: add what Fields.{missing} takes"


def test_keys_of_a_header_are_read_through_fields_alone() -> None:
    """What is read past them has no type, no bound, and no header that lies about it."""
    own = {"inputs/gguf_header.py", "inputs/header_fields.py"}
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in (PACKAGE / "inputs").rglob("*.py")
        if str(path.relative_to(PACKAGE)) not in own
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\b(fields|header)(\.get\(|\[)", line)
    ]
    assert not found, "read these through Fields (inputs/header_fields.py)"


class TestFields:
    def of(self, **values: object) -> Fields:
        given = {f"llama.{name.replace('__', '.')}": value for name, value in values.items()}
        return Fields(given, "llama")  # type: ignore[arg-type]

    def test_counts(self) -> None:
        assert self.of(n=3).count("{arch}.n") == 3
        assert self.of().count("{arch}.n", 7) == 7
        assert self.of(n=(1, 2)).counts("{arch}.n", 2) == (1, 2)
        assert self.of(n=4).counts("{arch}.n", 3) == (4, 4, 4)
        assert self.of(n=(True, False)).flags("{arch}.n") == (True, False)
        assert self.of(n=3).flags("{arch}.n") is None
        assert self.of(n=2).number("{arch}.n") == 2.0

    @pytest.mark.parametrize("value", [-1, 1 << 31, 2.0, True, "4", (4,), Array(9)])
    def test_a_count_of_another_kind_is_refused(self, value: object) -> None:
        with pytest.raises(BadHeader, match=r"has 'llama\.n' = .* not a number from 0 to"):
            self.of(n=value).count("{arch}.n")

    def test_what_is_missing_or_short_is_named(self) -> None:
        with pytest.raises(BadHeader, match=r"has no 'llama\.n' in its header"):
            self.of().count("{arch}.n")
        with pytest.raises(BadHeader, match="not 3 numbers, one per layer"):
            self.of(n=(1, 2)).counts("{arch}.n", 3)
        with pytest.raises(BadHeader, match="not true or false"):
            self.of(n=2).flag("{arch}.n", True)
        with pytest.raises(BadHeader, match="not text"):
            self.of(n=2).text("{arch}.n")


def test_a_flag_may_be_a_number() -> None:
    header = parse(with_key(scalar("llama.attention.causal", 4, 1)))
    assert Fields(header.fields, "llama").flag("{arch}.attention.causal", False)
