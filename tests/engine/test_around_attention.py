"""What stands around attention and in its parameters: faults planted into the graph are named.

They are planted into the library's own graph, before or after a node is computed; a build with that
fault computes the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pytest_kvquant.checks import kernels
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.cli.main import main
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.coverage_plan import Level
from pytest_kvquant.quality.examiner import Examined, Examiner
from pytest_kvquant.quality.scenarios.registry import all_scenarios
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.kernels import Examination
from pytest_kvquant.zoo import blocks, store
from pytest_kvquant.zoo.declaration import Member, Tensor
from pytest_kvquant.zoo.members import ALL, by_name

CELLS = 256

HOOK_TEXT = """
import ctypes
import numpy as np
from pytest_kvquant.engine.child import watch

honest = watch.Watched.__init__


def times(node, factor):
    values = np.frombuffer(node.bytes().tobytes(), np.float32) * np.float32(factor)
    node.ggml.write(node.raw, values.view(np.uint8))


def put(node, place, value):
    node.raw.contents.op_params[place] = int(np.float32(value).view(np.int32))


def hide(mask, row, cell):
    infinite = np.full(1, -np.inf, np.float16).view(np.uint8)
    mask.ggml.write(mask.raw, infinite, row * mask.nb[1] + cell * mask.nb[0])


def show(mask, row, cell):
    last = mask.ne[0] - 1
    nothing = np.zeros(1, np.float16).view(np.uint8)
    mask.ggml.write(mask.raw, nothing, row * mask.nb[1] + last * mask.nb[0])


def becomes(node, operation):
    numbers = range(200)
    number = next(one for one in numbers if node.ggml.op_name(one) == operation)
    node.raw.contents.op = number


def times_head(node, head, factor):
    values = np.frombuffer(node.bytes().tobytes(), np.float32).copy()
    values.reshape(node.ne[2], -1)[head] *= np.float32(factor)
    node.ggml.write(node.raw, values.view(np.uint8))


def init(self, *arguments, **fields):
    def leave_out(node):  # as if the operation had not been there
        before = self.oracle.values.whole(node.source(0))
        node.ggml.write(node.raw, np.ascontiguousarray(before, np.float32).view(np.uint8).ravel())

    honest(self, *arguments, **fields)
    found = {{}}

    def grow(node, place, factor):  # graphs are kept: the parameter may have been changed before
        key = node.address, node.name, place
        put(node, place, factor * found.setdefault(key, float(node.floats[place])))

    def spoil(node, layer):
        {change}

    self.tap.{when} = spoil


watch.Watched.__init__ = init
"""

PLAIN = "plain"
AHEAD, AFTER = "spoil_ahead", "spoil"

ATTENDS, TURNS = "if node.op == 'FLASH_ATTN_EXT': ", "if node.op == 'ROPE': "
LEFT_OUT: dict[str, tuple[str, str]] = {
    "softcap": (AHEAD, ATTENDS + "put(node, 2, 0.0)"),
    "sinks": (AHEAD, ATTENDS + "node.raw.contents.src[4] = None"),
    "alibi": (AHEAD, ATTENDS + "put(node, 1, 0.0)"),
    "scale": (AHEAD, ATTENDS + "put(node, 0, node.ne[0] ** -0.5)"),
    "rope": (AFTER, TURNS + "leave_out(node)"),
    "rope factors": (AHEAD, TURNS + "node.raw.contents.src[2] = None"),
    "yarn": (AHEAD, TURNS + "put(node, 7, 0.0)"),
    "partial rope": (AHEAD, TURNS + "node.raw.contents.op_params[1] = node.ne[0]"),
    "q and k norm": (AFTER, "if node.op == 'RMS_NORM' and node.ne[2] > 1: leave_out(node)"),
    "q and k bias": (AFTER, "if node.op == 'ADD': leave_out(node)"),
    "gated attention": (AFTER, "if node.name.startswith('gate_sigmoid'): times(node, 2.0)"),
}
"""How a graph computes without a feature: when something is changed, and what."""

QUICK = {("softcap", "gemma2-256"), ("sinks", "gpt-oss-64"), ("alibi", "bloom-64")}


def olmo_tensors() -> tuple[Tensor, ...]:
    layer = [*blocks.attention("blk.0", 2, 2, 32), *blocks.feed_forward("blk.0")]
    return (blocks.matrix("token_embd", blocks.VOCABULARY, blocks.EMBEDDING), *layer)


CLAMPED = Member(
    name="olmo-32", architecture="olmo", like="OLMo 7B: Q, K and V are clamped",
    head_k=32, head_v=32, group=1, features=(),
    header={**blocks.base(1, 2, 2), "attention.layer_norm_epsilon": 1e-5,
            "attention.clamp_kqv": 1.0},
    tensors=olmo_tensors(),
)  # fmt: skip


def examiner(folder: Path, model: str, hook: str = "", *, how: str = "") -> Examiner:
    """Of one depth and a few sizes.

    Args:
        how: ``plain``: f16 without flash attention, too; else the name of a scenario.
    """
    added = {}
    if hook:
        (folder / "hook.py").write_text(hook)
        added[HOOK] = str(folder / "hook.py")
    member = CLAMPED if model == CLAMPED.name else by_name(model) if model != "mini" else None
    path = EMBEDDED_MODEL if member is None else store.file_of(member, folder)
    engine = Engine(python=sys.executable, environment=scrub(dict(os.environ), added), timeout=120)
    tokens = np.random.default_rng(5).integers(5, 200, CELLS).astype(np.int32)
    subject = Examined(engine, read_model(path), 0, tokens, reproducers=folder / "nodes")
    name = "standard" if how == PLAIN else "minimal"
    made = Examiner(subject, Level(name, ((130, (1, 3)),), 2, scenarios=False, left_out=()))
    made._scenarios = [one for one in all_scenarios() if one.name == how]
    return made


def judged(found: Examination, pair: Pair) -> Check:
    """The worse of the two tests that tell of nodes."""
    subject = Subject(
        pair=pair, cell=Cell(pair=str(pair), verdict="pass", kernels=found), budgets={}
    )
    checks = [look(subject) for look in (kernels.graph_inputs, kernels.attention)]
    made = [check for check in checks if check is not None]
    return next((check for check in made if check.verdict != "pass"), made[0])


class Fault(NamedTuple):
    """A line of code that spoils a node, in a model; and words of what is said of it."""

    name: str
    model: str
    when: str
    change: str
    says: str
    pair: Pair = REFERENCE
    how: str = ""


FAULTS = (
    Fault(
        "the gate of attention", "qwen35moe-256", AFTER,
        "if node.name.startswith('gate_sigmoid'): times(node, 1.5)", "UNARY gate_sigmoid",
    ),
    Fault("clamped keys", "olmo-32", AFTER, "if node.op == 'CLAMP': times(node, 1.01)", "CLAMP"),
    Fault(
        "rows that a shift reads", "llama-128", AFTER,
        "if node.op == 'CPY' and node.type == 'f32' and node.name.startswith('cache_k'): "
        "times(node, 1.001)", "CPY of cache_k_l0 to f32", Pair("q8_0", "q8_0"), "shift_head",
    ),
    *(
        Fault(
            f"scale of {model}", model, AHEAD,
            f"if node.op == 'FLASH_ATTN_EXT': grow(node, 0, {by})", "its scale is",
        )
        for model, by in (("gemma4-512", 1.5), ("qwen35moe-256", 1.02), ("mimo2-192", 1.02),
                          ("deepseek2-576", 1.02))
    ),
    *(
        Fault(
            f"{name} of YaRN", "gpt-oss-64", AHEAD,
            f"if node.op == 'ROPE': grow(node, {place}, {by})", f"its {name} is",
        )
        for place, name, by in ((6, "scale", 1.02), (7, "ext", 0.0), (8, "attention", 1.02),
                                (9, "beta_fast", 2.0), (10, "beta_slow", 2.0))
    ),
    Fault(
        "a rope without its factors", "gemma4-512", AHEAD,
        "if node.op == 'ROPE': node.raw.contents.src[2] = None", "it has no rope factors",
    ),
    *(
        Fault(
            f"a mask that {what} a cell after a restore", "llama-128", AHEAD,
            "if node.op == 'FLASH_ATTN_EXT' and layer == 0 and self.mirrors.by_layer[0].restored: "
            f"{change}(node.source(3), 0, 3)",
            "of a restored state it shows", REFERENCE, "state_whole",
        )
        for what, change in (("hides", "hide"), ("shows", "show"))
    ),
    *(
        Fault(
            f"{what} that are not turned {how}".strip(), "llama-128", AHEAD,
            f"if node.op == 'ROPE' and node.name.startswith('{name}'): becomes(node, 'CONT')",
            f"{what} of layer 0 come through no rope", REFERENCE, how,
        )
        for what, name in (("keys", "Kcur"), ("queries", "Qcur")) for how in ("", PLAIN)
    ),
    Fault(
        "the base of a context shift", "llama-128", AHEAD,
        "if node.op == 'ROPE' and 'cache_k' in node.source(0).root.name: grow(node, 5, 1.02)",
        "its base is", REFERENCE, "shift_head",
    ),
    Fault(
        "the scale of a softmax", "llama-128", AHEAD,
        "if node.op == 'SOFT_MAX': grow(node, 0, 1.02)", "its scale is", REFERENCE, PLAIN,
    ),
    Fault(
        "a softcap that is forgotten without flash attention", "gemma2-256", AFTER,
        "if node.name.startswith('kq_tanh'): times(node, 1.01)", "UNARY kq_tanh", REFERENCE, PLAIN,
    ),
    Fault(
        "another softcap without flash attention", "gemma2-256", AHEAD,
        "if node.op == 'SCALE' and node.name.startswith('kq_scaled'): "
        "grow(node, 0, 2.0 if node.name.startswith('kq_scaled_2') else 0.5)",
        "its softcap is", REFERENCE, PLAIN,
    ),
    Fault(
        "the softmax of one head", "gemma2-256", AFTER,
        "if node.op == 'SOFT_MAX' and node.ne[2] > 2: times_head(node, 1, 1.001)", "SOFT_MAX",
        REFERENCE, PLAIN,
    ),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_named(fault: Fault, tmp_path: Path) -> None:
    hook = HOOK_TEXT.format(when=fault.when, change=fault.change)
    found = examiner(tmp_path, fault.model, hook, how=fault.how).examine(fault.pair)
    check = judged(found, fault.pair)
    assert check.verdict == "fail", check.text
    assert any(fault.says in one.text for one in found.failures), check.text


@pytest.mark.parametrize("model", sorted({(one.model, one.how) for one in FAULTS}))
def test_healthy_graphs_of_these_models_are_right(model: tuple[str, str], tmp_path: Path) -> None:
    found = examiner(tmp_path, model[0], how=model[1]).examine(REFERENCE)
    assert not found.failures
    assert not found.unknown
    assert judged(found, REFERENCE).verdict == "pass"


def features() -> list[object]:
    found = []
    for member in ALL:
        for feature in member.features:
            if feature in LEFT_OUT:
                marks = () if (feature, member.name) in QUICK else pytest.mark.slow
                found.append(pytest.param(member.name, feature, marks=marks))
    return found


@pytest.mark.parametrize(("model", "feature"), features())
def test_a_graph_without_a_feature_is_wrong(model: str, feature: str, tmp_path: Path) -> None:
    """Planted into the graph: nothing of the arithmetic that judges it is touched."""
    when, change = LEFT_OUT[feature]
    found = examiner(tmp_path, model, HOOK_TEXT.format(when=when, change=change)).examine(REFERENCE)
    assert judged(found, REFERENCE).verdict == "fail"


REPRODUCED = (
    ("UNARY", "qwen35moe-256", REFERENCE, ""),
    ("MUL", "qwen35moe-256", REFERENCE, ""),
    ("RMS_NORM", "gemma4-512", REFERENCE, ""),
    ("CONCAT", "deepseek2-576", REFERENCE, ""),
    ("CLAMP", "olmo-32", REFERENCE, ""),
    ("SCALE", "gemma2-256", REFERENCE, ""),
    ("SOFT_MAX", "llama-128", REFERENCE, PLAIN),
    ("MUL_MAT", "llama-128", REFERENCE, PLAIN),
    ("CPY", "llama-128", Pair("q8_0", "q8_0"), "shift_head"),
)
"""Operations, and where one is met."""


@pytest.mark.parametrize(("operation", "model", "pair", "how"), REPRODUCED)
def test_an_operation_is_computed_again_from_its_file(
    operation: str,
    model: str,
    pair: Pair,
    how: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was wrong in the graph is right alone: the build itself is healthy."""
    change = f"if node.op == '{operation}' and node.type == 'f32': times(node, 1.5)"
    lab = examiner(tmp_path, model, HOOK_TEXT.format(when=AFTER, change=change), how=how)
    found = lab.examine(pair)
    files = [one.reproducer for one in found.failures if one.reproducer and operation in one.text]
    assert files
    assert main(["reproduce", files[0]]) == 0
    said = capsys.readouterr().out
    assert said.startswith(operation)
    assert "NMSE against the file's output" in said
    assert "  right (" in said
