"""Floors by pattern, defaults of the plan, stored speeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_kvquant.baselines.speed import SpeedConditions, read_stored
from pytest_kvquant.config.floors import resolve_floors
from pytest_kvquant.config.overrides import FloorOverride
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.config.speed_tests import NAMES
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.machine.hardware import Hardware
from pytest_kvquant.matrix import Pair
from pytest_kvquant.session.speed_plan import make_plan
from pytest_kvquant.speed.stored import StoredSpeed

PAIR = Pair("q8_0", "turbo4")
HERE = Hardware(
    chip="c", cores=2, threads=2, memory=1 << 34, system="Linux 6", power="ac", backends=("CPU",)
)


def test_patterns_overlay_each_other_by_depth() -> None:
    overrides = {
        "*/turbo4": FloorOverride(pp=0.7, tg=0.8),
        "q8_0/* @ d65536": FloorOverride(pp=0.75, compression=2.5),
        "f16/*": FloorOverride(pp=0.99),
    }
    shallow = resolve_floors(PAIR, 0, embedded=False, overrides=overrides)
    deep = resolve_floors(PAIR, 65536, embedded=False, overrides=overrides)
    assert (shallow.pp, shallow.tg, shallow.compression) == (0.7, 0.8, None)
    assert (deep.ratio("pp"), deep.ratio("tg"), deep.compression) == (0.75, 0.8, 2.5)


@pytest.mark.parametrize("backend", ["", "CPU", "CUDA0", "MTL0", "Metal", "Vulkan0"])
def test_f16_is_held_to_itself_on_any_hardware(backend: str) -> None:
    found = resolve_floors(Pair("f16", "f16"), 0, embedded=False, overrides={}, backend=backend)
    assert (found.pp, found.tg) == (0.9, 0.9)


@pytest.mark.parametrize(
    ("pair", "pp", "tg"),
    [
        ("q8_0/turbo4", 0.269, 0.901), ("q8_0/turbo3", 0.175, 0.844), ("f16/turbo4", 0.224, 0.838),
        ("turbo4/q8_0", 0.164, 0.820), ("turbo4/turbo4", 0.126, 0.733),
        ("turbo3/f16", 0.117, 0.735), ("turbo3/turbo3", 0.085, 0.665),
        ("turbo2/turbo2", 0.107, 0.723),
    ],
)  # fmt: skip
def test_types_made_for_a_gpu_have_floors_on_a_cpu_too(pair: str, pp: float, tg: float) -> None:
    """Measured on the fork at depth 0: half of it is red without a baseline, 0.7 of it is not."""
    found = resolve_floors(Pair.parse(pair), 0, embedded=False, overrides={}, backend="CPU")
    for floor, healthy in ((found.pp, pp), (found.tg, tg)):
        assert healthy / 2 < floor < 0.71 * healthy
    deep = resolve_floors(Pair.parse(pair), 4096, embedded=False, overrides={}, backend="CPU")
    assert deep.pp < found.pp


def test_pr_times_a_cpu_beyond_2048_tokens_by_itself() -> None:
    plan = make_plan(Settings(model=Path("m.gguf"), profile="pr"), 4096, on_cpu=True)
    assert plan.depths == (0, 3584)
    assert make_plan(Settings(model=Path("m.gguf"), profile="pr"), 131072).depths == (0, 8192)


def test_a_class_of_hardware_has_floors_of_its_own() -> None:
    cpu, cuda = (
        resolve_floors(PAIR, 0, embedded=False, overrides={}, backend=backend)
        for backend in ("CPU", "CUDA0")
    )
    assert cpu.pp < cuda.pp
    assert cpu.cliff < cuda.cliff
    assert cpu.slowdown > cuda.slowdown
    upstream = resolve_floors(
        Pair("q8_0", "iq4_nl"), 0, embedded=False, overrides={}, backend="CPU"
    )
    assert cpu.tg < upstream.tg < cuda.tg
    owned = {"*/*": FloorOverride(pp=0.8)}
    own = resolve_floors(PAIR, 0, embedded=False, overrides=owned, backend="CPU")
    assert (own.pp, own.cliff) == (0.8, cpu.cliff)


@pytest.mark.parametrize("pattern", ["q8_0", "q8_0/turbo4 @ 8192", "q8_0/turbo4 @ deep", "@ d0"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError, match="K/V"):
        resolve_floors(PAIR, 0, embedded=False, overrides={pattern: FloorOverride(pp=0.5)})


@pytest.mark.parametrize("bad", [{"pp": 0.0}, {"slowdown": 1.0}, {"tg": float("inf")}, {"tok": 1}])
def test_a_floor_that_cannot_be_meant_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, FloorOverride)


def test_the_embedded_model_is_timed_briefly_and_real_ones_at_depth(tmp_path: Path) -> None:
    embedded = make_plan(Settings(profile="nightly"), 4096)
    assert (embedded.depths, embedded.tokens["pp"], embedded.tokens["tg"]) == ((0,), 32, 16)
    real = Settings(model=tmp_path, profile="nightly")
    assert make_plan(real, 131_072).depths == (0, 8192, 65536)
    assert make_plan(real, 65536).depths == (0, 8192, 65536 - 512)
    assert make_plan(real, 4096).depths == (0, 3584)
    assert make_plan(real, 256).depths == (0,)
    assert make_plan(real, 0).depths == (0, 8192, 65536)
    assert make_plan(msgspec.structs.replace(real, profile="quick"), 131_072).depths == (0,)
    usual = msgspec.structs.replace(real, profile="pr")
    assert make_plan(usual, 131_072).depths == (0, 8192)
    on_cpu = make_plan(usual, 131_072, on_cpu=True)
    assert (on_cpu.depths, on_cpu.tokens["tg"]) == ((0, 4096), 32)
    assert make_plan(real, 131_072, on_cpu=True).depths == (0, 8192, 65536)
    plan = make_plan(real, 131_072)
    assert (plan.tokens["pp"], plan.tokens["tg"], plan.seconds) == (512, 128, 0.01)
    assert on_cpu.seconds == 0.5
    assert plan.context(65536) == 65536 + 512


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (msgspec.convert(dict.fromkeys(NAMES, 0), Settings), "--kv-speed off"),
        (Settings(depths=(8, 0)), "ascend"),
        (Settings(depths=(8, 8)), "ascend"),
        (Settings(rounds=5), "fewer than 6"),
        (Settings(rounds=8, profile="nightly"), "fewer than 9"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(settings: Settings, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_plan(settings, 4096)


CONDITIONS = SpeedConditions(n_threads=4, n_batch=2048, n_ubatch=512, n_gpu_layers=-1, setup={})


def stored_result(path: Path, hardware: Hardware, **fields: object) -> Path:
    test = {
        "n_prompt": 512, "n_gen": 0, "n_depth": 0, "samples_ts": [90.0, 100.0, 110.0],
        "reference_ns": [4_000_000_000, 5_000_000_000, 6_000_000_000],
        "verdict": "pass", "declared": False, **CONDITIONS._asdict(), **fields,
    }  # fmt: skip
    result = {
        "model": {"fingerprint": "abc"},
        "hardware": msgspec.to_builtins(hardware),
        "speed": [{"pair": "q8_0/turbo4", "tests": [test]}],
    }
    path.write_text(json.dumps(result))
    return path


def read(
    path: Path, hardware: Hardware = HERE, model: str = "abc", **conditions: Any
) -> tuple[StoredSpeed, str]:
    return read_stored(
        path, hardware=hardware, model=model, conditions=CONDITIONS._replace(**conditions)
    )


def test_stored_speeds_count_on_the_same_hardware_and_model_only(tmp_path: Path) -> None:
    path = stored_result(tmp_path / "r.json", HERE)
    stored, problem = read(path)
    assert not problem
    found = stored.find(PAIR, "pp", 512, 0)
    assert found is not None
    assert (found.cell, found.reference) == (100.0, 102.4)
    assert stored.find(PAIR, "tg", 512, 0) is None
    elsewhere = msgspec.structs.replace(HERE, power="battery")
    stored, problem = read(path, elsewhere)
    assert "power: battery, CPU: no absolute floors" in problem
    assert stored.find(PAIR, "pp", 512, 0) is None
    assert "another model" in read(path, model="xyz")[1]


def test_stored_speeds_count_under_the_same_conditions_only(tmp_path: Path) -> None:
    path = stored_result(tmp_path / "r.json", HERE, n_batch=1024)
    stored, problem = read(path)
    assert not problem, "512 tokens are one batch of either size"
    assert stored.find(PAIR, "pp", 512, 0)
    stored, problem = read(path, n_threads=8)
    assert stored.find(PAIR, "pp", 512, 0) is None
    assert "measured with threads 4, batch 1024" in problem
    assert "this is threads 8, batch 2048" in problem


def test_stored_speeds_of_another_set_up_are_no_floor(tmp_path: Path) -> None:
    path = stored_result(tmp_path / "r.json", HERE)
    kept = {"kv-offload": "false"}
    stored, problem = read(path, setup=kept)
    assert stored.find(PAIR, "pp", 512, 0) is None
    assert problem.endswith(
        "gpu_layers -1, this is threads 4, batch 2048, ubatch 512, gpu_layers -1, "
        "kv-offload false: no absolute floors"
    )
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": {"setup": kept}}))
    assert read(path, setup=kept)[0].find(PAIR, "pp", 512, 0)
    assert "gpu_layers -1, kv-offload false, this is" in read(path)[1]


@pytest.mark.parametrize(
    "bad", [{"verdict": "fail"}, {"verdict": "cliff"}, {"reference_ns": []}], ids=str
)
def test_what_did_not_pass_then_is_no_norm(tmp_path: Path, bad: dict[str, object]) -> None:
    stored, problem = read(stored_result(tmp_path / "r.json", HERE, **bad))
    assert stored.find(PAIR, "pp", 512, 0) is None
    assert problem == "r.json holds no speeds that passed"


def test_a_declared_cliff_is_the_norm(tmp_path: Path) -> None:
    path = stored_result(tmp_path / "r.json", HERE, verdict="cliff", declared=True)
    assert read(path)[0].find(PAIR, "pp", 512, 0)


def test_a_baseline_that_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("[]")
    for name in ("r.json", "missing.json"):
        with pytest.raises(SettingsError, match="--kv-speed-baseline"):
            read(tmp_path / name)


SEEN_AT_DEPTH_0 = [
    ("q8_0/q8_0", 0.49, 0.92), ("q8_0/q8_0", 0.55, 1.0), ("f16/q8_0", 0.50, 0.97),
    ("q4_0/q4_0", 0.31, 0.84), ("q4_0/q4_0", 0.34, 0.92), ("q5_1/q4_0", 0.31, 0.90),
]  # fmt: skip
"""Healthy pairs of upstream and of the TurboQuant fork on a CPU: pair, pp512, tg32."""


@pytest.mark.parametrize(("pair", "pp", "tg"), SEEN_AT_DEPTH_0)
def test_on_a_cpu_half_of_a_healthy_speed_at_depth_0_is_red(
    pair: str, pp: float, tg: float
) -> None:
    floors = resolve_floors(Pair.parse(pair), 0, embedded=False, overrides={}, backend="CPU")
    assert pp / 2 < floors.pp < 0.75 * pp
    assert tg / 2 < floors.tg < 0.75 * tg
