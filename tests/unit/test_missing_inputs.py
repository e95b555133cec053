"""Every gate and check there is, and what it does when its input is missing: it never passes.

The list stands in docs/reliability.md; a check that is added has to say there what it does.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.config.budgets import IDENTICAL
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.outcomes.quality import never_made
from pytest_kvquant.results.cell import Cell, CensusRecord

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| (inconclusive|not made)\b", re.MULTILINE)
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


def told() -> dict[str, str]:
    """By name, what the page says."""
    section = PAGE.read_text(encoding="utf-8").partition("when its input is missing\n")[2]
    return dict(ROW.findall(section.partition("\n## ")[0]))


def subject(cell: Cell) -> Subject:
    """On a GPU, so that everything that can be asked for is."""
    others = (cell, msgspec.structs.replace(cell, pair="q4_0/q4_0", digests=("a",)))
    return Subject(
        pair=PAIR, cell=msgspec.structs.replace(cell, digests=("a",)), budgets=IDENTICAL,
        gpus=("CUDA0",), gpu_layers=-1, others=others,
    )  # fmt: skip


def test_the_list_is_whole() -> None:
    assert set(told()) == {one.name for one in registry.declared()}


@pytest.mark.parametrize("cell", BLIND.values(), ids=BLIND)
@pytest.mark.parametrize("name", [one.name for one in registry.declared() if not one.is_gate])
def test_a_check_without_its_input_never_passes(name: str, cell: Cell) -> None:
    declaration = registry.find(name)
    assert declaration is not None
    found = declaration.decide(subject(cell))
    if found is None:
        assert told()[name] == "not made" or cell is BARE
    else:
        assert found.verdict == "inconclusive", found.text
        assert told()[name] == "inconclusive"


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
