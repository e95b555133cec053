"""Nothing is measured under a false name: faults planted in workers, each under its verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.run import cells_of, measure, run

from pytest_kvquant.results.cell import Cell

CLEAN = "q4_0/q8_0"


def failed(cell: Cell) -> set[str]:
    """Names of the gates and checks that fail."""
    return {one.name for one in (*cell.gates, *cell.checks) if one.verdict == "fail"}


def test_a_clean_cell_passes_everything(tmp_path: Path) -> None:
    cells = run(tmp_path, CLEAN)
    assert failed(cells[CLEAN]) == set()
    assert failed(cells["f16/f16"]) == set()
    assert {check.name for check in cells[CLEAN].checks} == {
        "types", "placement", "off_device", "footprint", "measurable", "active", "distinct",
        "shapes", "restore", "trajectory", "quantizer", "steady_memory",
    }  # fmt: skip
    assert cells[CLEAN].quality is not None
    assert cells[CLEAN].quality.decode is not None


@pytest.mark.parametrize(
    ("types", "effective"),
    [
        pytest.param('("q8_0", v)', "q8_0/q8_0", id="K replaced"),
        pytest.param('(k, "f16")', "q4_0/f16", id="V ignored"),
        pytest.param("(v, k)", "q8_0/q4_0", id="K and V swapped"),
    ],
)
def test_other_types_than_asked_for_are_substituted(
    tmp_path: Path, types: str, effective: str
) -> None:
    cell = run(tmp_path, CLEAN, hook=f"plant(change_types=lambda k, v: {types})")[CLEAN]
    assert cell.verdict == "substituted"
    assert cell.gates == ()
    assert cell.quality is None
    asked_k, asked_v = CLEAN.split("/")
    held_k, held_v = effective.split("/")
    assert cell.message is not None
    assert (held_k in cell.message) or (held_v in cell.message)
    assert (asked_k in cell.message) or (asked_v in cell.message)


def test_types_that_differ_by_layer_are_substituted_and_the_layers_named(tmp_path: Path) -> None:
    # No upstream build mixes types; the fork's real blobs are pinned in tests/golden/fork.
    hook = """
plant()
_read = census.read

def mixed(state, types, **options):
    found = _read(state, types, **options)
    caches = tuple(
        cache._replace(layers=tuple(
            layer._replace(v_type="q8_0", v_row=272) if at in (0, 3) else layer
            for at, layer in enumerate(cache.layers)
        ))
        for cache in found.caches
    )
    return found._replace(caches=caches) if found.caches[0].layers[0].v_type == "q4_0" else found

census.read = mixed
"""
    cell = run(tmp_path, "q8_0/q4_0", hook=hook)["q8_0/q4_0"]
    assert cell.verdict == "substituted"
    assert cell.message is not None
    assert "0" in cell.message
    assert "3" in cell.message


def test_a_declared_substitution_passes_and_must_happen(tmp_path: Path) -> None:
    from pytest_kvquant.config.overrides import Expect

    swapped = "plant(change_types=lambda k, v: ('q8_0', v))"
    expect = {CLEAN: Expect(substituted="q8_0/q8_0")}
    happened = run(tmp_path, CLEAN, hook=swapped, expect=expect)[CLEAN]
    assert "types" not in failed(happened)
    assert happened.quality is not None
    missed = run(tmp_path, CLEAN, expect=expect)[CLEAN]
    assert "types" in failed(missed)


def test_a_fault_of_the_decode_path_alone(tmp_path: Path) -> None:
    hook = """
plant(change_logits=lambda x, tokens, *_: np.roll(x, 1, axis=1) if len(tokens) == 1 else x)
"""
    assert failed(run(tmp_path, CLEAN, hook=hook)[CLEAN]) == {
        "decode_kl_mean", "decode_kl_ratio", "trajectory",
    }  # fmt: skip


def test_a_fault_of_several_sequences_alone(tmp_path: Path) -> None:
    hook = """
plant(change_logits=lambda x, t, p, s: np.roll(x, 1, axis=1) if len(set(s)) > 1 else x)
"""
    cell = run(tmp_path, CLEAN, hook=hook)[CLEAN]
    assert "shapes" in failed(cell)
    assert "decode_kl_mean" not in failed(cell)
    shapes = next(check for check in cell.checks if check.name == "shapes")
    assert "several sequences" in shapes.text


@pytest.mark.slow
def test_a_state_that_is_not_the_whole_cache(tmp_path: Path) -> None:
    hook = """
plant()
_state = census.sequence_state

def lossy(llama, context, sequence=0):
    state = _state(llama, context, sequence)
    found = census.read(state, worker.library.types)
    for layer in found.caches[0].layers:
        if layer.v_type == "q8_0":
            rows = census.value_rows(state, found.caches[0], layer)
            start = layer.v_at
            state[start : start + rows.size // 2] = 0
    return state

census.sequence_state = lossy
"""
    assert failed(run(tmp_path, CLEAN, hook=hook)[CLEAN]) == {"restore"}


def test_nan_in_one_row_is_a_verdict_of_its_own(tmp_path: Path) -> None:
    hook = """
def poison(x, tokens, positions, sequences):
    if len(x) > 5:
        x[5, 7] = np.nan
    return x

plant(change_logits=poison)
"""
    cell = run(tmp_path, CLEAN, hook=hook)[CLEAN]
    assert cell.verdict == "non-finite"
    assert cell.message is not None
    assert "chunk 0, scored token 5" in cell.message


def test_a_cell_that_is_not_quantized_is_inactive(tmp_path: Path) -> None:
    # The census is lied to as well: only the logits can tell.
    hook = """
asked = {}
plant(change_types=lambda k, v: (asked.update(k=k, v=v), ("f16", "f16"))[1])
_read = census.read

def lying(state, types, **options):
    found = _read(state, types, **options)
    if not asked:
        return found
    row = lambda name: 256 // types[name]["block"] * types[name]["bytes"]
    layers = tuple(
        layer._replace(k_type=asked["k"], v_type=asked["v"], k_row=row(asked["k"]),
                       v_row=row(asked["v"]))
        for layer in found.caches[0].layers
    )
    cache = found.caches[0]._replace(layers=layers)
    return found._replace(caches=(cache,), bytes_per_token=cache.bytes_per_token)

census.read = lying
"""
    cells = run(tmp_path, CLEAN, hook=hook)
    assert failed(cells[CLEAN]) == {"active", "distinct", "footprint"}
    assert cells[CLEAN].verdict == "aliased"


def test_cells_with_the_same_logits_and_other_types_are_aliased(tmp_path: Path) -> None:
    hook = """
plant(change_logits=lambda x, *_: x)
_types = {}
_opened = Context.__init__

def same(self, model, *, type_k, type_v, **shape):
    _types.update(k=type_k, v=type_v)
    if type_k == "q5_0":
        type_k = "q4_0"
    _opened(self, model, type_k=type_k, type_v=type_v, **shape)

Context.__init__ = same
_read = census.read

def lying(state, types, **options):
    found = _read(state, types, **options)
    if _types.get("k") != "q5_0":
        return found
    layers = tuple(
        layer._replace(k_type="q5_0", k_row=256 // 32 * 22) for layer in found.caches[0].layers
    )
    return found._replace(caches=(found.caches[0]._replace(layers=layers),))

census.read = lying
"""
    cells = run(tmp_path, "q4_0/f16 q5_0/f16", hook=hook)
    assert cells["q4_0/f16"].verdict == "aliased"
    assert cells["q5_0/f16"].verdict == "aliased"
    distinct = next(check for check in cells["q4_0/f16"].checks if check.name == "distinct")
    assert "q5_0/f16" in distinct.text


@pytest.mark.slow
def test_a_toggle_in_the_shell_changes_nothing_and_is_recorded(tmp_path: Path) -> None:
    clean = measure(tmp_path, CLEAN)
    toggled = measure(
        tmp_path / "other",
        CLEAN,
        store=tmp_path / "other-store",
        shell={"LLAMA_ARG_CACHE_TYPE_K": "q4_0", "TURBO_SPARSE_V": "1"},
    )
    assert toggled.environment.variables_dropped == {
        "LLAMA_ARG_CACHE_TYPE_K": "q4_0",
        "TURBO_SPARSE_V": "1",
    }
    for pair, cell in cells_of(toggled).items():
        assert cell.quality == cells_of(clean)[pair].quality


def test_a_budget_under_the_noise_floor_is_refused(tmp_path: Path) -> None:

    # f16 itself is made to depend on n_ubatch, as it does on some devices.
    hook = """
def opened(self, model, **shape):
    _open(self, model, **shape)
    self.asked_ubatch = shape["ubatch"]

def decoded(self, *batch):
    logits = _decode(self, *batch)
    return logits * 1.01 if self.asked_ubatch != 512 else logits

Context.__init__, Context.decode = opened, decoded
"""
    cell = run(tmp_path, CLEAN, hook=hook, budgets={CLEAN: {"kl_mean": 1e-5}})[CLEAN]
    assert "measurable" in failed(cell)
