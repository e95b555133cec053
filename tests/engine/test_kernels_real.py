"""Kernels of the real engine against exact arithmetic: healthy ones pass, spoilt ones are named."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pytest_kvquant.checks import kernels
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.coverage_plan import level
from pytest_kvquant.quality.examiner import Examined, Examiner
from pytest_kvquant.quality.scenarios.registry import all_scenarios
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.kernels import Examination

CELLS = 320
PAIR = Pair("q8_0", "q4_0")

SPOILT = """
import numpy as np
from pytest_kvquant.engine.child import watch

honest = watch.Watched.__init__


def init(self, *arguments, **fields):
    honest(self, *arguments, **fields)

    def spoil(node, layer):
        if node.op == "FLASH_ATTN_EXT" and node.ne[2] == 3 and fields["type_k"] != "f16":
            head = np.frombuffer(node.bytes(node.ne[0] * 4).tobytes(), np.float32)
            node.ggml.write(node.raw, (head * np.float32(1.01)).view(np.uint8))

    self.tap.spoil = spoil


watch.Watched.__init__ = init
"""

DIES = """
import os, signal
from pytest_kvquant.engine.child import operations

honest = operations.Stage._decode


def shifted(self, *arguments):
    self.moved = True


def decode(self, *arguments):
    if getattr(self, "moved", False):
        os.kill(os.getpid(), signal.SIGSEGV)
    honest(self, *arguments)


operations.Stage._seq_add, operations.Stage._decode = shifted, decode
"""


OF_TOMORROW = """
from pytest_kvquant.engine.child import nodes

honest = nodes.Ggml.op_name
nodes.Ggml.op_name = lambda self, number: honest(self, number).replace("{known}", "SPIN")
"""


def examiner(tmp_path: Path, name: str = "minimal", hook: str = "", **changes) -> Examiner:
    added = {}
    if hook:
        path = tmp_path / "hook.py"
        path.write_text(hook)
        added[HOOK] = str(path)
    engine = Engine(python=sys.executable, environment=scrub(dict(os.environ), added), timeout=120)
    tokens = np.random.default_rng(1).integers(5, 200, CELLS).astype(np.int32)
    subject = Examined(
        engine, read_model(EMBEDDED_MODEL), 0, tokens, ubatch=128,
        reproducers=tmp_path / "nodes", **changes,
    )  # fmt: skip
    return Examiner(subject, level(name, cells=CELLS, ubatch=128))


def operations_of(found: Examination) -> set[str]:
    return {one.operation for one in found.corners}


@pytest.mark.parametrize(
    ("known", "operation", "look"),
    [
        ("ROPE", "rope", kernels.graph_inputs),
        ("FLASH_ATTN_EXT", "attention", kernels.attention),
        ("SET_ROWS", "write", kernels.cache_writes),
    ],
)
def test_an_operation_that_is_not_understood_is_named_and_not_passed(
    tmp_path: Path, known: str, operation: str, look: Callable[[Subject], Check | None]
) -> None:
    """As in a graph of tomorrow's: it has another name than any that is known."""
    found = examiner(tmp_path, hook=OF_TOMORROW.format(known=known)).examine(PAIR)
    assert not found.failures
    assert set(found.unknown) == {"SPIN"}
    assert operation not in operations_of(found)
    cell = Cell(pair=str(PAIR), verdict="pass", kernels=found)
    seen = look(Subject(pair=PAIR, cell=cell, budgets={}))
    assert seen is not None
    assert seen.verdict == "inconclusive"
    assert "not judged: SPIN" in seen.text


@pytest.mark.parametrize("pair", ["f16/f16", "q8_0/q4_0", "q5_1/bf16", "iq4_nl/q5_0"])
def test_healthy_kernels_are_right(tmp_path: Path, pair: str) -> None:
    found = examiner(tmp_path).examine(Pair.parse(pair))
    assert found.problem is None
    assert not found.failures
    assert not found.unknown
    assert operations_of(found) >= {"attention", "write", "rope", "norm", "mask"}
    assert {one.tokens for one in found.rungs} == {1, 2, 3, 8, 33}
    assert all(one.fused in (None, 0.0) for one in found.rungs)
    compared = [one for one in found.rungs if one.own is not None and pair != "f16/f16"]
    assert all(one.cost is not None and one.cost > 0 for one in compared)
    assert max(one.ratio for one in found.corners) <= 1


def test_one_percent_of_one_head_in_one_batch_size_is_named_and_can_be_reproduced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pytest_kvquant.cli.main import main

    found = examiner(tmp_path, hook=SPOILT).examine(PAIR)
    wrong = {one.tokens for one in found.corners if one.operation == "attention" and one.failed}
    assert wrong == {3}
    failure = found.failures[0]
    assert "3 query tokens" in failure.text
    assert "head 0" in failure.text
    assert failure.reproducer is not None
    assert main(["reproduce", failure.reproducer]) == 0  # the build itself is right
    said = capsys.readouterr().out
    assert "NMSE against the file's output" in said
    assert "right" in said


def test_scenarios_compare_with_f16_and_a_death_costs_only_its_own(tmp_path: Path) -> None:
    lab = examiner(tmp_path, "standard", hook=DIES)
    found = lab.examine(REFERENCE)
    verdicts = {one.name: one.verdict for one in found.scenarios}
    assert verdicts["shift_head"] == verdicts["shift_middle"] == "crashed"
    assert {name for name, verdict in verdicts.items() if verdict != "pass"} == {
        "shift_head", "shift_middle",
    }  # fmt: skip
    text = next(one.text for one in found.scenarios if one.name == "shift_head")
    assert "llama_memory_seq_add(0, 40, -1, -36)" in text
    assert "SIGSEGV" in text


def test_a_users_own_scenario_is_played(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from pytest_kvquant.quality.scenarios.registry import scenario\n"
        "@scenario('my own')\n"
        "def my_own(tape):\n"
        "    tape.fill(0, 20)\n"
        "    tape.score(0, 4)\n"
    )
    found = examiner(tmp_path, "standard", scenario_files=(path,)).examine(PAIR)
    mine = next(one for one in found.scenarios if one.name == "my_own")
    assert mine.verdict == "pass"
    assert mine.reference is not None
    assert 0 < mine.reference < 0.1
    assert {one.verdict for one in found.scenarios} == {"pass"}


def test_another_file_is_no_reproducer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pytest_kvquant.cli.main import main

    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    assert main(["reproduce", str(tmp_path / "other.npz")]) == 2
    assert "is not a node" in capsys.readouterr().err


LOSES_STATES = """
from pytest_kvquant.engine.child import operations

honest = operations._bytes
operations._bytes = lambda state: honest(state[::-1].copy())
"""

DIES_IN_DIVIDE = DIES.replace("_seq_add, ", "_seq_div, ")


def only(lab: Examiner, *names: str) -> Examiner:
    """The examiner, with scenarios of these names alone."""
    lab._scenarios = [one for one in all_scenarios() if one.name in names]
    return lab


def test_a_state_that_does_not_come_back_fails_for_f16_too(tmp_path: Path) -> None:
    lab = only(
        examiner(tmp_path, "standard", hook=LOSES_STATES), "state_other_slot", "copy_unified"
    )
    for pair in (REFERENCE, PAIR):
        verdicts = {one.name: one.verdict for one in lab.examine(pair).scenarios}
        assert verdicts == {"state_other_slot": "fail", "copy_unified": "pass"}


def test_a_death_in_a_scenario_with_a_known_fault_is_another_one(tmp_path: Path) -> None:
    lab = only(examiner(tmp_path, "full", hook=DIES_IN_DIVIDE), "divide")
    (record,) = lab.examine(REFERENCE).scenarios
    assert (record.verdict, record.known) == ("crashed", "")
    (tmp_path / "healthy").mkdir()
    (record,) = only(examiner(tmp_path / "healthy", "full"), "divide").examine(REFERENCE).scenarios
    assert record.verdict == "pass" or record.known


DIES_WITHOUT_FLASH = """
import os, signal
from pytest_kvquant.engine.child import watch

honest = watch.Watched._decode_batch


def decode(self, *arguments):
    if not self._flash:
        os.kill(os.getpid(), signal.SIGSEGV)
    return honest(self, *arguments)


watch.Watched._decode_batch = decode
"""

ONCE = """
import numpy as np
from pytest_kvquant.engine.child import ascent

honest, done = ascent.Ascent._decode, []


def decode(self, start, count, *, wanted=True):
    rows = honest(self, start, count, wanted=wanted)
    if count == 3 and wanted and {times} not in done and not self._is_reference:
        done.append(len(done))
        rows = rows + np.random.default_rng(len(done)).normal(0, 0.5, rows.shape).astype("f4")
    return rows


ascent.Ascent._decode = decode
"""


def verdict_of(look: Callable[[Subject], Check | None], pair: Pair, lab: Examiner) -> Check:
    cell = Cell(pair=str(pair), verdict="pass", kernels=lab.examine(pair))
    budgets = {"kl_mean": 0.03}
    found = look(Subject(pair, cell, budgets, reference_kernels=lab.examine(REFERENCE)))
    assert found is not None
    return found


def test_a_death_of_f16_without_flash_attention_fails(tmp_path: Path) -> None:
    lab = only(examiner(tmp_path, "standard", hook=DIES_WITHOUT_FLASH))
    said = verdict_of(kernels.flash_attention, REFERENCE, lab)
    assert said.verdict == "fail"
    assert "SIGSEGV" in said.text
    assert "no other figure of this run can be trusted" in said.text


def test_a_fault_that_comes_and_goes_is_no_jump(tmp_path: Path) -> None:
    lab = examiner(tmp_path, hook=ONCE.format(times=0))
    said = verdict_of(kernels.ladder, PAIR, lab)
    assert said.verdict == "fail"
    assert "a batch of 3 tokens" in said.text
    assert "gives other logits each time" in said.text


def test_a_jump_of_the_same_text_is_excused_as_before(tmp_path: Path) -> None:
    """The same figure twice, and another with other tokens."""
    hook = ONCE.format(times=1).replace("default_rng(len(done))", "default_rng(1)")
    said = verdict_of(kernels.ladder, PAIR, examiner(tmp_path, hook=hook))
    assert said.verdict == "pass"
    assert "looked at again" in said.text


APART = """
import numpy as np
from pytest_kvquant.engine.child import operations

honest, played = operations.Stage.outputs.fget, []


def outputs(self):
    found = honest(self)
    if self.context.facts_of_a_test != "f16":
        played.append(1)
        if len(played) in {times}:
            found["end"] = found["end"] + np.random.default_rng(3).normal(
                0, 1.0, found["end"].shape
            ).astype("f4")
    return found


operations.Stage.outputs = property(outputs)
from pytest_kvquant.engine.child import watch

made = watch.Watched.__init__


def init(self, *arguments, **fields):
    made(self, *arguments, **fields)
    self.facts_of_a_test = fields["type_k"]


watch.Watched.__init__ = init
"""


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        pytest.param("(1, 2)", "pass", id="a jump of those tokens"),
        pytest.param("(1, 2, 3)", "fail", id="always"),
        pytest.param("(1,)", "fail", id="comes and goes"),
    ],
)
def test_logits_of_a_scenario_are_looked_at_again(tmp_path: Path, times: str, verdict: str) -> None:
    lab = only(examiner(tmp_path, "standard", hook=APART.format(times=times)), "remove_middle")
    (record,) = lab.examine(PAIR).scenarios
    assert record.verdict == verdict, record.text


def test_batches_of_few_tokens_that_are_cut_into_graphs_are_followed(tmp_path: Path) -> None:
    """3 tokens of one stream and 1 of another: two graphs of 2 tokens, at other addresses."""
    lab = only(examiner(tmp_path, "full"), "prefill_beside_decode_streams_3", "state_file")
    found = lab.examine(REFERENCE)
    assert {one.name: one.verdict for one in found.scenarios} == {
        "prefill_beside_decode_streams_3": "pass", "state_file": "pass",
    }  # fmt: skip
    assert not found.failures
    assert not [text for text in found.left_out if "restored" in text]


def test_a_shift_of_what_was_restored_is_said_to_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from pytest_kvquant.quality.scenarios.registry import scenario\n"
        "@scenario('a state is shifted')\n"
        "def shifted_state(tape):\n"
        "    tape.fill(0, 40)\n"
        "    tape.save('one', 0)\n"
        "    tape.restore('one', 0)\n"
        "    tape.seq_rm(0, 0, 8)\n"
        "    tape.seq_add(0, 8, -1, -8)\n"
        "    tape.goes_on(0, 32)\n"
        "    tape.score(0, 4)\n"
    )
    lab = only(examiner(tmp_path, "full", scenario_files=(path,)), "shifted_state")
    found = lab.examine(REFERENCE)
    assert not found.failures
    assert [text for text in found.left_out if "restored" in text]
