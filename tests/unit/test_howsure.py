"""The section "how sure" says the rules that the run really followed."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kvquant.numerics.rules import PROFILES, Rules
from pytest_kvquant.report.howsure import how_sure, rules_of
from pytest_kvquant.results.conditions import SettingsRecord


def shape(**changed: Any) -> SettingsRecord:
    given: dict[str, Any] = {
        "ctx": 512, "scored": 255, "sequences": 4, "batch": 2048, "ubatch": 512, "threads": 2,
        "gpu_layers": -1, "order": "shuffled", "seed": 7, "profile": "pr", "cap": 32,
        "early": True, "strict": False,
    }  # fmt: skip
    return SettingsRecord(**given | changed)


def text(**changed: Any) -> str:
    return "\n\n".join(how_sure(shape(**changed), 80))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_rules_are_those_of_the_profile(profile: str) -> None:
    rules = PROFILES[profile]
    assert rules_of(shape(profile=profile, cap=rules.cap)) == rules


def test_a_fixed_number_of_chunks_is_one_look() -> None:
    assert rules_of(shape(profile="nightly", cap=20, early=False)) == Rules(cap=20, early=False)
    said = text(cap=20, early=False)
    assert "looked at once, after 20 chunks" in said
    assert "here once, after 20 chunks" in said


def test_it_names_unit_rules_and_limits() -> None:
    said = text()
    for words in (
        "512 tokens", "last 255", "shuffled, seed 7", "reaches 100 at any time", "at most 1 %",
        "after 4, 8, 16 and 32 chunks", "judged 80 figures", "Holm",
        "1.2 times the budget", "does not fail the run",
    ):  # fmt: skip
        assert words in said


def test_what_stays_open_depends_on_the_run() -> None:
    assert "strict was asked for" in text(strict=True)
    assert "the plain mean decides" in text(profile="nightly", cap=128)
    assert "the plain mean decides" not in text(profile="nightly", cap=128, early=False)
