"""Only devices in use are visible to a worker, and keep the names that the user gave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.machine.visible import ALL, only

HIDDEN = {
    "CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1", "GGML_VK_VISIBLE_DEVICES": "",
}  # fmt: skip


def test_without_words_all_is_visible() -> None:
    assert only((), {}) == ALL
    assert ALL.told({"CUDA0": "CUDA0"}) == {"CUDA0": "CUDA0"}
    assert ALL.asked(None) is None


@pytest.mark.parametrize(
    ("word", "variable"),
    [("CUDA1", "CUDA_VISIBLE_DEVICES"), ("ROCm1", "HIP_VISIBLE_DEVICES")],
)
def test_one_gpu_hides_the_others_of_every_kind(word: str, variable: str) -> None:
    seen = only([word], {})
    assert seen.variables == {**HIDDEN, variable: "1"}
    assert seen.asked(word) == f"{word[:-1]}0"


@pytest.mark.parametrize("word", ["CPU", "CPU:0-3", "MTL0", "RPC0", "RPC[host:50052]"])
def test_other_devices_hide_them_all(word: str) -> None:
    assert only([word], {}) == (HIDDEN, {})


@given(st.lists(st.integers(0, 15), min_size=1, max_size=8, unique=True))
def test_each_device_is_found_again_under_the_users_name(numbers: list[int]) -> None:
    seen = only([f"CUDA{number}" for number in numbers], {})
    physical = [int(word) for word in seen.variables["CUDA_VISIBLE_DEVICES"].split(",")]
    assert physical == numbers
    for inner, outer in enumerate(physical):
        assert seen.told(f"CUDA{inner}") == f"CUDA{outer}"
        assert seen.asked(f"CUDA{outer}") == f"CUDA{inner}"


def test_what_is_narrowed_already_is_counted_on() -> None:
    shell = {"CUDA_VISIBLE_DEVICES": "GPU-aa, 3,2"}
    seen = only(["CUDA2", "CUDA0"], shell)
    assert seen.variables["CUDA_VISIBLE_DEVICES"] == "2,GPU-aa"
    assert seen.names == {"CUDA0": "CUDA2", "CUDA1": "CUDA0"}
    # one that is not there is nobody, and no other device in its place
    assert only(["CUDA3"], shell).variables["CUDA_VISIBLE_DEVICES"] == "-1"


def test_vulkan_counts_drivers_so_only_who_sets_the_variable_knows_its_numbers() -> None:
    assert "GGML_VK_VISIBLE_DEVICES" not in only(["Vulkan1"], {}).variables
    seen = only(["Vulkan1"], {"GGML_VK_VISIBLE_DEVICES": "1,3"})
    assert seen.variables["GGML_VK_VISIBLE_DEVICES"] == "3"
    assert seen.told("Vulkan0: out of memory") == "Vulkan1: out of memory"


def test_names_are_put_right_wherever_they_stand_but_in_paths() -> None:
    seen = only(["CUDA3"], {})
    said = {
        "devices": [{"name": "CUDA0", "free": 1}],
        "left": {"CUDA0": 7, "CPU": 8},
        "text": "layer 3: CUDA0 KV buffer, [CUDA0] and CUDA0_Host; it lies in CUDA0.",
        "path": "/builds/CUDA0/lib/libllama-CUDA0.so",
    }
    assert seen.told(said) == {
        "devices": [{"name": "CUDA3", "free": 1}],
        "left": {"CUDA3": 7, "CPU": 8},
        "text": "layer 3: CUDA3 KV buffer, [CUDA3] and CUDA0_Host; it lies in CUDA3.",
        "path": "/builds/CUDA0/lib/libllama-CUDA0.so",
    }


def test_tensor_overrides_name_the_users_device() -> None:
    seen = only(["CUDA1", "CUDA0"], {})
    given_ = {"override-tensor": [r"blk\.1=CUDA0", r"blk\.2=CUDA1", "exps=CPU"], "mmap": True}
    assert seen.setup(given_) == {
        "override-tensor": [r"blk\.1=CUDA1", r"blk\.2=CUDA0", "exps=CPU"],
        "mmap": True,
    }
    assert ALL.setup(given_) == given_
