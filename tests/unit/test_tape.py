"""Tapes: where tokens go, and steps in the words of the API."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_kvquant.errors import SettingsError
from pytest_kvquant.quality.scenarios.registry import all_scenarios
from pytest_kvquant.quality.scenarios.tape import Tape, in_words

TEXT = np.arange(1000, dtype=np.int32)


def spans(tape: Tape) -> list[tuple[int, int, list[int]]]:
    return [tuple(span[:3]) for name, *rest in tape.steps if name == "decode" for span in rest[0]]


def test_a_context_shift_goes_on_behind_what_moved() -> None:
    tape = Tape(TEXT, cells=64)
    tape.fill(0, 6)
    tape.seq_rm(0, 1, 3)
    tape.seq_add(0, 3, -1, -2)
    tape.score(0, 2)
    assert spans(tape) == [(0, 0, [0, 1, 2, 3, 4, 5]), (0, 4, [6, 7])]


def test_a_tail_taken_back_is_read_again() -> None:
    tape = Tape(TEXT, cells=64)
    tape.fill(0, 4)
    tape.score(0, 2, "first")
    tape.rewind(0, 4)
    tape.seq_rm(0, 4)
    tape.score(0, 2, "again")
    assert spans(tape)[1] == spans(tape)[2]


def test_a_copy_reads_what_its_original_would_read() -> None:
    tape = Tape(TEXT, cells=64)
    tape.fill(2, 3)
    tape.seq_cp(2, 0)
    tape.together({2: 1, 0: 1}, "end", of=0)
    assert [span[1:] for span in spans(tape)[1:]] == [(3, spans(tape)[1][2])] * 2


def test_the_first_token_is_the_one_that_sequences_start_with() -> None:
    tape = Tape(TEXT, cells=64, bos=999)
    tape.fill(0, 3)
    tape.clear()
    tape.fill(0, 2)
    assert [span[2] for span in spans(tape)] == [[999, 1, 2], [999, 1]]


def test_steps_are_told_in_the_words_of_the_api() -> None:
    tape = Tape(TEXT, cells=64)
    tape.fill(0, 6)
    tape.seq_rm(0, 1, 3)
    tape.seq_add(0, 3, -1, -2)
    tape.save("x")
    tape.save("y", 0)
    assert [in_words(step) for step in tape.steps] == [
        "llama_decode(6 tokens of sequence 0 at 0)",
        "llama_memory_seq_rm(0, 1, 3)",
        "llama_memory_seq_add(0, 3, -1, -2)",
        "llama_state_get_data",
        "llama_state_seq_get_data",
    ]


@pytest.mark.parametrize("one", all_scenarios(), ids=lambda one: one.name)
def test_every_scenario_stays_within_its_cells_and_ends_with_logits(one) -> None:
    tape = Tape(TEXT, cells=one.size(64), window=64)
    one.record(tape)
    labels = {step[2] for step in tape.steps if step[0] == "decode" and step[2]}
    assert labels
    assert {label for pair in tape.equal for label in pair} <= labels
    room = tape.cells * one.sequences if one.unified else tape.cells
    reopened = max([step[1] for step in tape.steps if step[0] == "reopen"], default=0)
    for sequence, position, words in spans(tape):
        assert position + len(words) <= max(room, reopened), (one.name, sequence)
        assert sequence < one.sequences
    assert all(in_words(step) for step in tape.steps)


def test_a_users_own_scenario_is_one_decorated_function(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from pytest_kvquant.quality.scenarios.registry import scenario\n"
        "@scenario('mine', sequences=2)\n"
        "def only_mine(tape):\n"
        "    tape.score(0, 4)\n"
    )
    assert "only_mine" in {one.name for one in all_scenarios([path])}


@pytest.mark.parametrize("text", ["1/0", "x = 1"])
def test_a_file_without_scenarios_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(SettingsError, match="--kv-scenarios"):
        all_scenarios([path])
