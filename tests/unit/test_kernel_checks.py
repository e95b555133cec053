"""Checks of kernels: figures to verdicts, and what is declared to fail."""

from __future__ import annotations

import msgspec
import pytest

from pytest_kvquant.checks import kernels, operations
from pytest_kvquant.checks.budgets import resolve_budgets
from pytest_kvquant.checks.declared import as_declared
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.config.expectations import declared_failures
from pytest_kvquant.config.overrides import Expect
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.kernels import (
    CornerRecord,
    Examination,
    NodeFailure,
    RungRecord,
    ScenarioRecord,
)

PAIR = Pair("q8_0", "q4_0")


def corner(operation: str = "attention", failed: int = 0, backend: str = "CPU") -> CornerRecord:
    return CornerRecord(
        operation=operation, tokens=3, backend=backend, nodes=10, failed=failed,
        ratio=2.0 if failed else 0.5, error=1e-9, worst=1e-8,
    )  # fmt: skip


def failure(operation: str = "attention") -> NodeFailure:
    return NodeFailure(
        operation=operation, layer=1, node="n", tokens=3, text="head 1 is off", ratio=2.0,
        reproducer="x.npz",
    )  # fmt: skip


def scenario(name: str, verdict: str = "pass") -> ScenarioRecord:
    return ScenarioRecord(name=name, title=name, verdict=verdict, text=f"{name}: {verdict}")


def subject(
    found: Examination, pair: Pair = PAIR, reference: Examination | None = None, **changes
) -> Subject:
    return Subject(
        pair=pair,
        cell=Cell(pair=str(pair), verdict="pass", kernels=found),
        budgets=resolve_budgets(pair, embedded=False, overrides={}),
        reference_kernels=reference or Examination(level="standard"),
        **changes,
    )


def test_a_wrong_node_fails_the_check_of_its_operation_alone() -> None:
    found = Examination(
        level="standard", corners=(corner(failed=1), corner("write")), failures=(failure(),)
    )
    wrong = kernels.attention(subject(found))
    assert wrong is not None
    assert wrong.verdict == "fail"
    assert "1 of 10 nodes" in wrong.text
    assert "kvquant reproduce x.npz" in wrong.text
    right = kernels.cache_writes(subject(found))
    assert right is not None
    assert right.verdict == "pass"


def test_a_wrong_reference_says_that_nothing_can_be_trusted() -> None:
    found = Examination(level="standard", corners=(corner(failed=1),), failures=(failure(),))
    wrong = kernels.attention(subject(found, REFERENCE))
    assert wrong is not None
    assert "no other figure of this run can be trusted" in wrong.text


def test_nothing_judged_is_not_a_pass() -> None:
    empty = kernels.attention(subject(Examination(level="standard", unknown={"FANCY": 3})))
    assert empty is not None
    assert empty.verdict == "inconclusive"
    assert "FANCY" in empty.text
    died = kernels.attention(subject(Examination(level="standard", problem="crashed: by SIGSEGV")))
    assert died is not None
    assert died.verdict == "fail"


def test_what_is_not_understood_around_attention_leaves_its_inputs_open() -> None:
    """Attention and writes that were judged pass; what feeds them may be wrong."""
    seen = tuple(corner(name) for name in ("attention", "write", "rope"))
    cell = subject(Examination(level="standard", corners=seen, unknown={"FANCY": 3}))
    for look, verdict in (
        (kernels.attention, "pass"),
        (kernels.cache_writes, "pass"),
        (kernels.graph_inputs, "inconclusive"),
    ):
        found = look(cell)
        assert found is not None
        assert found.verdict == verdict
        assert "not judged: FANCY" in found.text


@pytest.mark.parametrize(
    ("own", "verdict"), [(1e-9, "pass"), (1.0, "fail"), (float("nan"), "fail")]
)
def test_batch_sizes_must_agree_but_for_noise(own: float, verdict: str) -> None:
    found = Examination(
        level="standard", rungs=(RungRecord(depth=250, tokens=3, own=own),
                                 RungRecord(depth=250, tokens=4, own=0.0))
    )  # fmt: skip
    said = kernels.ladder(subject(found))
    assert said is not None
    assert said.verdict == verdict
    if verdict == "fail":
        assert "3 tokens at depth 250" in said.text


def test_f16_cannot_be_held_against_itself() -> None:
    found = Examination(level="standard", rungs=(RungRecord(depth=0, tokens=3, own=0.1),))
    said = kernels.ladder(subject(found, REFERENCE, found))
    assert said is not None
    assert said.verdict == "fail"


@pytest.mark.parametrize(
    ("backend", "apart", "verdict"),
    [("CUDA0", 3.5e-7, "pass"), ("CUDA0", 0.5, "fail"), ("CPU", 1e-30, "fail")],
)
def test_f16_on_a_gpu_may_round_otherwise_where_kernels_fuse(
    backend: str, apart: float, verdict: str
) -> None:
    """arctic and phimoe on an H100: experts are chosen in one kernel, and f16 has no budget."""
    found = Examination(
        level="standard",
        corners=(corner(backend=backend),),
        rungs=(RungRecord(depth=156, tokens=1, own=0.0, fused=apart),),
    )
    asked = subject(found, REFERENCE, found)
    budgets = {**asked.budgets, "kl_mean": 0.0}
    said = kernels.fused(asked._replace(budgets=budgets))
    assert said is not None
    assert said.verdict == verdict, said.text


def rungs_of(*own: float) -> Examination:
    rungs = tuple(RungRecord(depth=250, tokens=size + 1, own=kl) for size, kl in enumerate(own))
    return Examination(level="standard", rungs=rungs, without_flash=0.0058)


GEMMA = (0.0017, 0.0049, 0.0037, 0.0042, 0.0043, 0.0045, 0.0042, 0.0041, 0.0045, 0.0051, 0.0081)
"""f16 of Gemma 3 270M on a CPU, healthy: KL between batches of 1 to 33 tokens and of 250."""


def test_a_model_that_is_sensitive_in_every_batch_size_is_no_fault() -> None:
    found = rungs_of(*GEMMA)
    for check in (kernels.ladder, kernels.flash_attention):
        said = check(subject(found, REFERENCE, found))
        assert said is not None
        assert said.verdict == "pass", said.text


def test_one_batch_size_that_is_wrong_stands_out_on_it() -> None:
    found = rungs_of(*GEMMA, 0.03)
    said = kernels.ladder(subject(found, REFERENCE, found))
    assert said is not None
    assert said.verdict == "fail"


def test_on_a_cpu_looking_changes_no_bit() -> None:
    rungs = (RungRecord(depth=0, tokens=1, fused=1e-12),)
    on_cpu = Examination(level="standard", corners=(corner(),), rungs=rungs)
    elsewhere = Examination(level="standard", corners=(corner(backend="CUDA0"),), rungs=rungs)
    assert [kernels.fused(subject(one)).verdict for one in (on_cpu, elsewhere)] == ["fail", "pass"]


def test_f16_with_and_without_flash_attention() -> None:
    for apart, verdict in ((1e-4, "pass"), (0.1, "fail")):
        said = kernels.flash_attention(
            subject(Examination(level="standard", without_flash=apart), REFERENCE)
        )
        assert said is not None
        assert said.verdict == verdict
    assert kernels.flash_attention(subject(Examination(level="standard"))) is None


def test_a_scenario_that_dies_fails_and_one_that_cannot_be_does_not() -> None:
    played = (scenario("one"), scenario("two", "crashed"), scenario("three", "unsupported"))
    said = operations.operations(subject(Examination(level="standard", scenarios=played)))
    assert said is not None
    assert said.verdict == "fail"
    assert said.text == "two: crashed"
    rest = Examination(level="standard", scenarios=(played[0], played[2]))
    fine = operations.operations(subject(rest))
    assert fine is not None
    assert fine.verdict == "pass"
    assert "cannot three" in fine.text


def test_a_declared_operation_passes_until_it_works_again() -> None:
    declared = frozenset({"operations.two"})
    broken = Examination(level="standard", scenarios=(scenario("one"), scenario("two", "crashed")))
    said = operations.operations(subject(broken, declared=declared))
    assert said is not None
    assert said.verdict == "pass"
    assert "two fail as declared" in said.text
    mended = Examination(level="standard", scenarios=(scenario("one"), scenario("two")))
    said = operations.operations(subject(mended, declared=declared))
    assert said is not None
    assert said.verdict == "fail"
    assert "does not any more" in said.text


def test_a_declared_check_is_turned_round_and_an_open_one_is_left() -> None:
    wrong = Check(name="attention", verdict="fail", text="it is off")
    assert as_declared(wrong, {"attention"}).verdict == "pass"
    right = msgspec.structs.replace(wrong, verdict="pass")
    assert as_declared(right, {"attention"}).verdict == "fail"
    open_one = msgspec.structs.replace(wrong, verdict="inconclusive")
    assert as_declared(open_one, {"attention"}) == open_one
    assert as_declared(wrong, {"ladder"}) == wrong


def test_declarations_are_of_pairs_and_devices() -> None:
    expect = {
        "q8_0/*": Expect(fails=("operations.shift_head",)),
        "*/q4_0": Expect(fails=("attention",), device="MTL*"),
    }
    assert declared_failures(PAIR, "CPU", expect) == {"operations.shift_head"}
    assert declared_failures(PAIR, "MTL0", expect) == {"operations.shift_head", "attention"}
    assert not declared_failures(Pair("f16", "f16"), "CPU", expect)


def rungs(own: float, reference: float | None = None) -> tuple[RungRecord, ...]:
    return tuple(
        RungRecord(depth=250, tokens=tokens, own=own, reference=reference)
        for tokens in (1, 2, 16, 33)
    )


def test_a_ladder_on_a_gpu_is_held_against_what_f16_shows_there() -> None:
    """Measured on an H200: f16 0.0015 between batch sizes, turbo4 V 0.013."""
    turbo4 = Pair("f16", "turbo4")
    noisy = Examination(level="standard", rungs=rungs(1.5e-3))
    quiet = Examination(level="standard", rungs=rungs(1e-7))
    on_gpu, on_cpu = (corner(backend="CUDA0"),), (corner(),)

    def verdict(own: float, where: tuple[CornerRecord, ...], reference: Examination) -> str:
        found = Examination(level="standard", corners=where, rungs=rungs(own, reference=0.012))
        said = kernels.ladder(subject(found, turbo4, reference))
        assert said is not None
        return said.verdict

    assert verdict(0.013, on_gpu, noisy) == "pass"
    assert verdict(0.1, on_gpu, noisy) == "fail"
    assert verdict(0.013, on_gpu, quiet) == "fail"
    assert verdict(0.013, on_cpu, noisy) == "fail"


def told(*figures: tuple[int, float | None, float]) -> Check:
    """What the ladder says of a pair beside a quiet f16: tokens, KL to the largest, KL to f16."""
    found = Examination(
        level="minimal",
        corners=(corner(),),
        rungs=tuple(
            RungRecord(depth=250, tokens=tokens, own=own, reference=reference)
            for tokens, own, reference in figures
        ),
    )
    said = kernels.ladder(subject(found, reference=rungs_of(0.0, 0.0, 1.6e-4)))
    assert said is not None
    return said


def test_roundings_that_fall_the_other_way_are_no_fault() -> None:
    """Gemma 3 270M, q8_0/f16 on a CPU, healthy: rotations of 2 and 3 keys differ in last bits."""
    said = told((33, None, 0.0065), (8, 0.0, 0.0066), (3, 0.0022, 0.0041), (2, 0.0021, 0.0051),
                (1, 0.0, 0.0022))  # fmt: skip
    assert said.verdict == "pass", said.text


def test_a_wrong_batch_size_stands_out_and_makes_no_room_for_itself() -> None:
    """Planted on the embedded model: a feed-forward 5 % off, and one that loses a row."""
    sizes = ((64, None, 0.0081), (33, 0.0, 0.0093), (32, 0.0, 0.0095), (16, 0.0, 0.0086))
    assert told(*sizes, (3, 0.0057, 0.0136)).verdict == "fail"
    assert told((64, None, 0.0081), (33, 0.106, 0.118), *sizes[2:]).verdict == "fail"


def test_attention_that_left_the_device_of_its_cache_fails_unless_it_is_declared() -> None:
    found = Examination(
        level="standard", corners=(corner(backend="CUDA_Host"),), failures=(failure("placement"),)
    )
    said = kernels.attention_placement(subject(found))
    assert said is not None
    assert said.verdict == "fail"
    kept = subject(found)._replace(gpus=("CUDA0",), kv_offload=False)
    said = kernels.attention_placement(kept)
    assert said is not None
    assert said.verdict == "pass"
    assert "as --no-kv-offload asks" in said.text
    said = kernels.attention_placement(subject(found, off_device=True))
    assert said is not None
    assert said.verdict == "pass"
    said = kernels.attention_placement(subject(found)._replace(reference_kernels=found))
    assert said is not None
    assert said.verdict == "pass"
    assert "so is f16's: no pair of types can run there" in said.text


def test_what_the_processor_computes_in_pinned_memory_must_not_change_either() -> None:
    found = Examination(
        level="standard", corners=(corner(backend="CUDA_Host"),),
        rungs=(RungRecord(depth=0, tokens=1, fused=1e-12),),
    )  # fmt: skip
    said = kernels.fused(subject(found))
    assert said is not None
    assert said.verdict == "fail"


def test_a_known_fault_of_llama_cpp_is_told_and_fails_nothing() -> None:
    known = msgspec.structs.replace(scenario("divide", "fail"), known="pos_div has the wrong sign")
    said = operations.operations(subject(Examination(level="full", scenarios=(known,))))
    assert said is not None
    assert said.verdict == "pass"
    assert "divide fails, as is known: pos_div has the wrong sign" in said.text


def test_a_scenario_whose_server_was_lost_leaves_operations_open() -> None:
    lost = scenario("shift_head", "server-lost")
    said = operations.operations(subject(Examination(level="full", scenarios=(lost,))))
    assert said is not None
    assert said.verdict == "inconclusive"


def test_nodes_of_a_declared_scenario_fail_that_scenario_alone() -> None:
    wrong = msgspec.structs.replace(failure("parameters"), scenario="divide")
    found = Examination(level="full", corners=(corner("parameters", failed=1),), failures=(wrong,))
    said = kernels.graph_inputs(subject(found))
    assert said is not None
    assert said.verdict == "fail"
    said = kernels.graph_inputs(subject(found, declared=frozenset({"operations.divide"})))
    assert said is not None
    assert said.verdict == "pass"


@pytest.mark.parametrize(("cost", "verdict"), [(1.7e-8, "pass"), (None, "fail")])
def test_the_first_token_of_a_cache_is_held_against_what_types_cost_at_that_token(
    cost: float | None, verdict: str
) -> None:
    """bloom-64 with q8_0 on an H200: a model of random weights is a hundred times as sensitive at
    its first token as in the mean of 128, and f16's own noise there is, too."""
    on_gpu = (corner(backend="CUDA0"),)
    noise = (RungRecord(depth=0, tokens=1, own=1.97e-9), RungRecord(depth=250, tokens=8, own=2e-11))
    found = Examination(
        level="minimal",
        corners=on_gpu,
        rungs=(
            RungRecord(depth=0, tokens=128, reference=1.0e-9),
            RungRecord(depth=0, tokens=1, own=2.29e-8, reference=1.7e-8, cost=cost),
            RungRecord(depth=250, tokens=33, reference=3.0e-10),
        ),
    )
    cell = Cell(pair=str(PAIR), verdict="pass", kernels=found)
    of_f16 = Examination(level="minimal", corners=on_gpu, rungs=noise)
    seen = kernels.ladder(Subject(pair=PAIR, cell=cell, budgets={}, reference_kernels=of_f16))
    assert seen is not None
    assert seen.verdict == verdict
