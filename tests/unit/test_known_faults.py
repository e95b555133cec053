"""Which faults of llama.cpp itself are known on members of the zoo."""

from __future__ import annotations

import pytest

from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.kernels import Examination, ScenarioRecord
from pytest_kvquant.zoo.known_faults import NO_ROTATION, PARTIAL, known_faults, with_known
from pytest_kvquant.zoo.members import by_name


@pytest.mark.parametrize(
    ("member", "k", "why"),
    [("phi3-96", "q8_0", NO_ROTATION), ("mimo2-192", "q4_0", PARTIAL), ("phi3-96", "f16", None),
     ("llama-128", "q8_0", None), ("bloom-64", "q8_0", None)],
)  # fmt: skip
def test_a_shift_dies_where_keys_are_quantized_and_of_that_shape(
    member: str, k: str, why: str | None
) -> None:
    assert set(known_faults(by_name(member), Pair(k, "f16")).values()) == ({why} if why else set())


def test_a_death_in_a_decode_is_marked_and_nothing_else() -> None:
    texts = {
        "shift_head": ("crashed", "shift: crashed in llama_decode(16 tokens) after x. SIGSEGV"),
        "shift_tail": ("fail", "shift: unsupported in llama_decode(16 tokens) after x. no kernel"),
        "shift_middle": ("pass", "shift"),
        "shift_wrong": ("fail", "KL against f16 in the same steps is 3, allowed 0.002"),
        "shift_before": ("crashed", "shift: crashed in llama_memory_seq_add(0). SIGSEGV"),
        "state_whole": ("crashed", "state: crashed in llama_decode(16 tokens). SIGSEGV"),
    }
    found = Examination(
        level="full",
        scenarios=tuple(
            ScenarioRecord(name=name, title="", verdict=verdict, text=text)
            for name, (verdict, text) in texts.items()
        ),
    )
    marked = with_known(found, {"shift_*": PARTIAL})
    assert [one.known for one in marked.scenarios] == [PARTIAL, PARTIAL, "", "", "", ""]
