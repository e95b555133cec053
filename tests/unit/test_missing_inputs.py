"""Every gate and check there is, and what it does when its input is missing: it never passes.

A check that is added declares what it does; a gate cannot be made without figures of its path.
"""

from __future__ import annotations

import msgspec
import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.budgets import identical
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.outcomes.quality import never_made
from pytest_kvquant.results.cell import Cell, CensusRecord

PAIR = Pair("q8_0", "q4_0")
UNREADABLE = CensusRecord(
    layers=(), bytes_per_token=float("nan"), expected_bytes_per_token=1, compression_expected=1.0,
    kind="unreadable", text="it is not understood",
)  # fmt: skip
BARE = Cell(pair=str(PAIR), verdict="pass")
BLIND = {
    "nothing is there": BARE,
    "an unreadable census": msgspec.structs.replace(BARE, census=UNREADABLE),
}
"""A cell of which nothing was seen."""


def subject(cell: Cell) -> Subject:
    """On a GPU, so that everything that can be asked for is."""
    others = (cell, msgspec.structs.replace(cell, pair="q4_0/q4_0", digests=("a",)))
    return Subject(
        pair=PAIR, cell=msgspec.structs.replace(cell, digests=("a",)), budgets=identical(),
        gpus=("CUDA0",), gpu_layers=-1, others=others,
    )  # fmt: skip


@pytest.mark.parametrize("cell", BLIND.values(), ids=BLIND)
@pytest.mark.parametrize("name", [one.name for one in registry.declared() if not one.is_gate])
def test_a_check_without_its_input_never_passes(name: str, cell: Cell) -> None:
    declaration = registry.find(name)
    assert declaration is not None
    found = declaration.decide(subject(cell))
    if found is None:
        assert declaration.unseen == "not made" or cell is BARE
    else:
        assert found.verdict == "inconclusive", found.text
        assert declaration.unseen == "inconclusive"


EVERYTHING = Settings(probe="always", coverage="standard", decode=8, trajectory=8, strict=True)
ASKED = {
    "contents", "decode_kl_mean", "trajectory", "shapes", "restore", "attention", "cache_writes",
    "operations",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ASKED))
def test_what_was_asked_for_and_is_not_there_is_named(name: str) -> None:
    """With --kv-strict its test fails; without, it is skipped with these words."""
    assert never_made(name, BARE, EVERYTHING) == f"{name} was asked for and not measured"
    off = Settings(probe="off", coverage="off", decode=0, trajectory=0)
    assert bool(never_made(name, BARE, off)) == (name in ("shapes", "restore"))


def test_f16_s_own_rows_are_what_others_are_compared_with() -> None:
    own = msgspec.structs.replace(BARE, pair=str(REFERENCE))
    assert not never_made("contents", own, EVERYTHING)
