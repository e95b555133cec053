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


def test_what_works_and_what_is_another_fault_is_not_marked() -> None:
    found = Examination(
        level="full",
        scenarios=tuple(
            ScenarioRecord(name=name, title="", verdict=verdict, text="")
            for name, verdict in (("shift_head", "crashed"), ("shift_middle", "pass"),
                                  ("state_whole", "crashed"))
        ),
    )  # fmt: skip
    marked = with_known(found, {"shift_*": PARTIAL})
    assert [one.known for one in marked.scenarios] == [PARTIAL, "", ""]
