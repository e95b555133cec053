"""What a machine permits: weights from a header, cache from a geometry, shares in words."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.inputs import geometry
from pytest_kvquant.inputs.gguf_header import TensorInfo
from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.inputs.weights import Weights, weights
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.roof import MachineRates, TokenWork, decode_roof, prefill_roof
from pytest_kvquant.report.roof_lines import roof_lines
from pytest_kvquant.results.speed import RoofShare, SpeedCell, SpeedTest
from pytest_kvquant.speed.roof import Roofs

F16, Q8_0, FORKS_OWN = 1, 8, 45
TYPES: geometry.Types = {
    "f16": {"block": 1, "bytes": 2},
    "q8_0": {"block": 32, "bytes": 34},
}


def tensor(name: str, *shape: int, kind: int = F16) -> TensorInfo:
    return TensorInfo(name, shape, kind, 0)


DENSE = (tensor("token_embd.weight", 64, 1000), tensor("blk.0.ffn_up.weight", 64, 128, kind=Q8_0))
UP = 64 * 128 // 32 * 34


def found(*tensors: TensorInfo, **fields: int) -> Weights | None:
    header = {f"some.{name}": value for name, value in fields.items()}
    return weights(tensors, Fields(header, "some"))


def test_a_table_of_embeddings_is_read_whole_only_where_it_is_the_output_too() -> None:
    tied = Weights(read=64 * 1000 * 2 + UP, multiplied=64 * 128)
    assert found(*DENSE) == tied
    own_output = tensor("output.weight", 64, 1000)
    assert found(*DENSE, own_output) == tied  # one of the two, and no row of the other counts


def test_of_a_mixture_the_experts_in_use_are_read() -> None:
    experts = tensor("blk.0.ffn_up_exps.weight", 64, 128, 8)
    cost = found(experts, expert_count=8, expert_used_count=2)
    assert cost == Weights(read=64 * 128 * 2 * 2, multiplied=64 * 128 * 2)


def test_tables_of_rows_and_idle_heads_are_not_read() -> None:
    idle = tensor("per_layer_token_embd.weight", 64, 1000), tensor("blk.1.nextn.eh.weight", 64, 64)
    assert found(*DENSE, *idle) == found(*DENSE)


def test_a_weight_of_an_unknown_size_leaves_the_roof_open() -> None:
    assert found(*DENSE, tensor("blk.0.x.weight", 64, 64, kind=FORKS_OWN)) is None


def test_experts_told_in_another_way_refuse_no_model() -> None:
    header = {"some.expert_count": "many"}
    assert weights(DENSE, Fields(header, "some")) is None


@given(
    work=st.builds(TokenWork, *[st.floats(1, 1e12)] * 3),
    rates=st.builds(MachineRates, *[st.floats(1, 1e15)] * 2),
    at_once=st.integers(1, 4096),
)
def test_no_roof_is_over_what_either_bound_permits(
    work: TokenWork, rates: MachineRates, at_once: int
) -> None:
    read = work.weights + work.cache
    assert decode_roof(work, rates).speed == pytest.approx(rates.read / read)
    prefill = prefill_roof(work, rates, at_once).speed
    assert prefill <= rates.multiply / work.operations * (1 + 1e-9)
    assert prefill <= at_once * rates.read / read * (1 + 1e-9)


MODEL = Model(
    path="m.gguf", name="m", architecture="qwen3", fingerprint="0", size=1, context_trained=4096,
    n_layer=2, n_embd=64, n_head=8, n_head_kv=(2, 2), head_dim_k=64, head_dim_v=64, causal=True,
    weights=Weights(read=1_000_000, multiplied=900_000),
)  # fmt: skip


RATES = MachineRates(1e9, 1e12)


class Machine:
    """A worker whose machine reads 1 GB/s and does 1 TFLOP/s."""

    def __init__(self, answer: MachineRates | None = RATES) -> None:
        self.asked: list[tuple[str | None, int]] = []
        self.answer = answer

    def rates(self, device: str | None, size: int, threads: int) -> MachineRates | None:
        self.asked.append((device, size))
        return self.answer


def roofs(machine: Machine, device: str | None = None, model: Model = MODEL) -> Roofs:
    made = Roofs(model, TYPES, device, batch=2048, ubatch=512)
    for context in (512, 600):
        made.measure(machine, context, 2)  # type: ignore[arg-type]
    return made


def test_decode_reads_weights_and_cache_and_a_smaller_cache_permits_more() -> None:
    own = roofs(Machine())
    f16, q8 = (own.of(Pair.parse(one), "tg", 32, 4096) for one in ("f16/f16", "q8_0/q8_0"))
    assert f16
    assert q8
    rows = 4096 + 16
    assert f16.amount == 1_000_000 + rows * 2 * 2 * 2 * 64 * 2
    assert q8.amount == 1_000_000 + rows * 2 * 2 * 2 * 64 * 34 // 32
    assert f16.by == q8.by == "bandwidth"
    assert q8.speed > f16.speed == 1e9 / f16.amount


def test_prefill_multiplies_weights_and_attends_to_every_row() -> None:
    found = roofs(Machine()).of(Pair.parse("f16/f16"), "pp", 512, 1024)
    assert found
    assert found.by == "operations"
    assert found.amount == 2 * 900_000 + 2 * (1024 + 256) * 2 * 8 * (64 + 64)


def test_a_size_is_measured_once() -> None:
    machine = Machine()
    roofs(machine)
    assert machine.asked == [(None, 1 << 21)]
    gpu = Machine()
    roofs(gpu, "CUDA0")
    assert gpu.asked == [("CUDA0", 1 << 30)]


@pytest.mark.parametrize(
    ("machine", "model"),
    [(Machine(None), MODEL), (Machine(), msgspec.structs.replace(MODEL, weights=None))],
    ids=["not measured", "weights unknown"],
)
def test_what_is_not_known_has_no_roof(machine: Machine, model: Model) -> None:
    assert roofs(machine, model=model).of(Pair.parse("f16/f16"), "tg", 32, 0) is None


def shown(pair: str, share: float, depth: int, *, f16: float | None = 0.64) -> SpeedCell:
    roof = RoofShare(
        by="bandwidth", rate=48e9, amount=2e7, ts=2400, share=share, reference_share=f16
    )
    test = msgspec.convert(
        {
            **dict.fromkeys(SpeedTest.__struct_fields__, 0), **TEXTS, "n_gen": 32, "n_depth": depth,
        },
        SpeedTest,
        strict=False,
    )  # fmt: skip
    return SpeedCell(pair=pair, tests=(msgspec.structs.replace(test, roof=roof),))


TEXTS = {
    **dict.fromkeys(
        ("build_commit", "cpu_info", "gpu_info", "backends", "model_filename", "model_type",
         "type_k", "type_v", "test_time", "name", "text"), ""
    ),
    **dict.fromkeys(("samples_ns", "samples_ts", "reference_ns", "ratios", "by_depth"), ()),
    "repeats": (1, 1), "verdict": "pass", "flash_attn": True, "declared": False, "roof": None,
}  # fmt: skip


@pytest.mark.parametrize(("then", "told"), [(96e9, True), (50e9, False), (None, False)])
def test_a_machine_that_was_faster_is_told(then: float | None, told: bool) -> None:
    cell = shown("q8_0/q8_0", 0.59, 0)
    (test,) = cell.tests
    assert test.roof
    roof = msgspec.structs.replace(test.roof, stored_rate=then)
    (line,) = roof_lines(
        [msgspec.structs.replace(cell, tests=(msgspec.structs.replace(test, roof=roof),))]
    )
    words = "(96 GB/s in the speed baseline: the machine is busy or held back)"
    assert (words in line) is told


def test_a_line_a_test_says_how_near_f16_and_the_pairs_come() -> None:
    cells = [
        shown("f16/f16", 0.64, 0),
        shown("q8_0/q8_0", 0.59, 0),
        shown("q4_0/q4_0", 0.004, 0),
        shown("q8_0/q8_0", 0.22, 4096, f16=0.35),
        shown("q8_0/q8_0", 0.1, 8192, f16=None),
    ]
    assert roof_lines(cells) == [
        "tg, of the most that 48 GB/s permit: f16/f16 64%, other pairs 0.4% to 59%; at depth 4,096 "
        "f16/f16 35%, other pairs 22%; at depth 8,192 other pairs 10%"
    ]
    assert roof_lines([SpeedCell(pair="f16/f16")]) == []
