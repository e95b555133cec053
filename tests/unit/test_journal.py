"""The journal: what is whole is taken over, and nothing else."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
from filelock import FileLock

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.session import continuing
from pytest_kvquant.session import journal as module
from pytest_kvquant.session.account import RunAccount
from pytest_kvquant.session.depends import depends
from pytest_kvquant.session.finished import MeasuredCell
from pytest_kvquant.session.journal import OLDEST, SUFFIX, Journal
from pytest_kvquant.session.setups import in_words

CELL = Cell(pair="q8_0/q4_0", verdict="pass", shapes={"alone": float("nan")})


class Told(list[str]):
    """What a person was told."""


def opened(root: Path, told: Told | None = None, **changes: Any) -> Journal:
    given: dict[str, Any] = {
        "command": {"types": ["f16"]}, "depends": {"the build": "a"}, "started": "2026-01-01",
        "fresh": False, "shared": False, "tell": (told if told is not None else Told()).append,
    }  # fmt: skip
    return Journal(root, **{**given, **changes})


def left(root: Path) -> Path:
    """A journal that a killed run left, with one cell."""
    journal = opened(root)
    journal.keep("cell", "q8_0/q4_0", {"n": 1}, CELL)
    journal.close()
    (part,) = journal.folder.glob(f"*{SUFFIX}")
    return part


def taken(journal: Journal, key: dict[str, object] | None = None) -> Cell | None:
    return journal.find("cell", "q8_0/q4_0", key or {"n": 1}, Cell)


def test_the_same_command_takes_it_over_and_says_so(tmp_path: Path) -> None:
    left(tmp_path)
    told = Told()
    again = opened(tmp_path, told, started="2026-01-02")
    found = taken(again)
    assert found is not None
    assert found.pair == CELL.pair
    assert again.sittings() == ["2026-01-01"]
    assert "interrupted run of 2026-01-01 finished the quality of 1 pair" in told[0]


@pytest.mark.parametrize(
    "changes", [{"command": {"types": ["f32"]}}, {"depends": {"the build": "b"}}, {"fresh": True}]
)
def test_another_command_build_or_wish_takes_nothing_over(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    left(tmp_path)
    assert taken(opened(tmp_path, **changes)) is None


def test_what_changed_is_named(tmp_path: Path) -> None:
    left(tmp_path)
    told = Told()
    opened(tmp_path, told, depends={"the build": "b", "the machine": "x"})
    assert told[0].endswith("measured again: the build, the machine changed since")


def test_another_key_is_another_part(tmp_path: Path) -> None:
    left(tmp_path)
    assert taken(opened(tmp_path), {"n": 2}) is None


def test_cells_of_another_number_of_selected_ones_are_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chance is shared among the cells that were selected: a verdict depends on how many."""
    monkeypatch.setattr(continuing, "command_of", lambda _settings: {})
    monkeypatch.setattr(continuing, "depends", lambda *_, **__: {})
    settings = Settings(types=("f16", "q8_0"))
    ready = mock.MagicMock(settings=settings)
    ready.store.root, ready.task.shape.threads, ready.library.chip = tmp_path, 2, "CPU"
    pair = Pair("q8_0", "q8_0")
    measured: list[int] = []

    def sit(selected: int) -> None:
        account = RunAccount(settings)
        account.selected = account.pairs[:selected]
        account.ledger.plan("a test that does not end")
        sitting = continuing.Continuing(ready, account, f"2026-{selected}", Told().append)
        sitting.begin("")

        def measure() -> MeasuredCell:
            measured.append(selected)
            return MeasuredCell(cell=Cell(pair=str(pair), verdict="pass"), floor=None)

        sitting.finished.cell(pair, measure, usable=lambda _: True)
        sitting.end()

    for selected in (4, 4, 2, 2):
        sit(selected)
    assert measured == [4, 2]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_part_is_measured_again(tmp_path: Path, damage: str) -> None:
    part = left(tmp_path)
    data = part.read_bytes()
    part.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "flip": data.replace(b'"verdict":"pass"', b'"verdict":"fail"'),
            "empty": b"",
            "other": b'{"format": "another"}',
        }[damage]
    )
    assert taken(opened(tmp_path)) is None


def test_an_old_part_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left(tmp_path)
    later = datetime.datetime.now(datetime.UTC) + OLDEST + datetime.timedelta(days=1)
    monkeypatch.setattr("pytest_kvquant.session.part.now", lambda: later)
    assert taken(opened(tmp_path)) is None


def test_a_second_run_of_the_command_keeps_none(tmp_path: Path) -> None:
    first = opened(tmp_path)
    told = Told()
    second = opened(tmp_path, told)
    second.keep("cell", "q8_0/q4_0", {"n": 1}, CELL)
    assert "another run of this very command is under way" in told[0]
    assert not list(first.folder.glob(f"*{SUFFIX}"))


def test_a_whole_run_leaves_nothing(tmp_path: Path) -> None:
    left(tmp_path)
    journal = opened(tmp_path)
    taken(journal)
    journal.finish()
    assert not list(tmp_path.rglob("*"))


def test_a_full_disk_is_told_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    journal = opened(tmp_path, told)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_durably", full)
    journal.keep("cell", "a", {}, CELL)
    journal.keep("cell", "b", {}, CELL)
    assert len(told) == 1
    assert "No space left on device" in told[0]


def test_a_kill_while_writing_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)

    def die(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        journal.keep("cell", "a", {}, CELL)
    assert sorted(path.name for path in journal.folder.iterdir()) == ["identity.json", "lock"]


def test_journals_of_long_ago_go_and_held_ones_stay(tmp_path: Path) -> None:
    part = left(tmp_path)
    for path in part.parent.iterdir():
        os.utime(path, (0, 0))
    with FileLock(part.parent / "lock"):
        module.sweep(tmp_path)
        assert part.exists()
    module.sweep(tmp_path)
    assert not part.exists()


def test_parts_are_plain_json(tmp_path: Path) -> None:
    assert msgspec.json.decode(left(tmp_path).read_bytes())["record"]["shapes"] == {"alone": "nan"}


def depending(settings: Settings) -> dict[str, str]:
    library = mock.MagicMock(hash="h", bindings="b", chip="CPU", gpus_in_use=lambda _layers: [])
    return depends(
        mock.MagicMock(fingerprint="m"), mock.MagicMock(fingerprint="c"), "t", library, library,
        scrub({}, {}), settings=settings, setup=in_words(settings),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("a.gguf", "the options of llama.cpp"), ("v.gguf", "the options of llama.cpp"),
        ("own.py", "the scenarios' files"), ("logits.bin", "the reference's logits"),
    ],
)  # fmt: skip
def test_a_file_that_was_replaced_is_another_run(tmp_path: Path, file: str, what: str) -> None:
    """Its path is the same: cells of the old one would be taken over as the new one's."""
    for name in ("a.gguf", "v.gguf", "own.py", "logits.bin"):
        (tmp_path / name).write_text("before")
    settings = Settings(
        setup={"lora": [f"{tmp_path}/a.gguf:0.5"], "control-vector": [f"{tmp_path}/v.gguf"]},
        scenarios=(str(tmp_path / "own.py"),),
        reference_logits=tmp_path / "logits.bin",
    )
    before = depending(settings)
    assert depending(settings) == before
    (tmp_path / file).write_text("after it was trained further")
    after = depending(settings)
    assert [name for name in after if after[name] != before[name]] == [what]
