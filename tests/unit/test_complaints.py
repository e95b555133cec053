"""A wrong value of the configuration: what, where (file and line), and what would be valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvquant.config.speed_tests import NAMES
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.results.library import Library
from pytest_kvquant.session.readiness import settle
from pytest_kvquant.session.variables import names_in, unread

BEFORE = "# types is the first\ntypes = ['f16']\n\n"

WRONG = {
    "a key": ("typess = ['f16']", "line 4: unknown key 'typess'; did you mean 'types'?"),
    "a gate in budgets": (
        "[budgets.'q8_0/*']\nkl_mean = 1\nkl_tial = 1",
        "line 6: unknown key 'kl_tial' in [budgets.\"q8_0/*\"]; did you mean 'kl_tail'?",
    ),
    "a budget of another kind": (
        "[budgets.'q8_0/*']\nkl_mean = 'x'",
        "line 5: [budgets.\"q8_0/*\"] kl_mean: 'x' stands where a number belongs.",
    ),
    "a budget below zero": (
        "[budgets.'q8_0/*']\nkl_mean = -1",
        'line 5: [budgets."q8_0/*"] budget kl_mean = -1 must be a number from 0 up.',
    ),
    "a table that is none": ("budgets = 3", "line 4: budgets: 3 stands where a table belongs."),
    "a floor": (
        "[floors]\n'*/*' = { slowdwn = 0.1 }",
        "line 5: [floors.\"*/*\"] unknown key 'slowdwn'; did you mean 'slowdown'?",
    ),
    "a floor that is no table": (
        "[floors]\n'f16/q8_0' = { pp = 1 }\n'*/*' = 3",
        'line 6: [floors."*/*"] 3 stands where a table belongs.',
    ),
    "an expectation": (
        "[expect.'f16/q8_0']\nsubstitutd = 'f16/f16'",
        "line 5: [expect.\"f16/q8_0\"] unknown key 'substitutd'; did you mean 'substituted'?",
    ),
    "a cliff": (
        "[expect]\n'f16/q8_0' = { cliff = 'tgg' }",
        "line 5: [expect.\"f16/q8_0\"] cliff: 'tgg' is none of "
        f"{', '.join(NAMES)}, both; did you mean 'tg'?",
    ),
    "a check that is expected to fail": (
        "[expect]\n'f16/q8_0' = { fails = ['atention'] }", "did you mean 'attention'?",
    ),
    "a variable that is no text": (
        "[environment]\nTURBO_X = 3",
        'line 5: [environment."TURBO_X"] 3 stands where a text in quotes belongs.',
    ),
    "a number": ("ctx = 'many'", "line 4: ctx: 'many' stands where a whole number belongs."),
    "a profile": (
        "profile = 'nightli'",
        "line 4: profile: 'nightli' is none of quick, pr, nightly; did you mean 'nightly'?",
    ),
    "a path": ("model = 3", "line 4: model: 3 stands where a path in quotes belongs."),
    "an option of llama.cpp": (
        "[context]\nflash-atn = 'on'",
        "line 5: unknown key 'flash-atn' in [context]; did you mean 'flash-attn'?",
    ),
    "a rule": ("batch = 16\nubatch = 32", "must not exceed --kv-batch 16 (see "),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_one_sentence_with_file_line_and_what_would_be_valid(case: str, tmp_path: Path) -> None:
    written, said = WRONG[case]
    (tmp_path / "kvquant.toml").write_text(f"{BEFORE}{written}\n")
    with pytest.raises(SettingsError) as refused:
        settle({}, config=None, root=tmp_path)
    text = str(refused.value)
    assert said in text
    assert "$" not in text
    assert "Expected" not in text
    assert "\n" not in text


def test_a_value_of_the_command_line_is_that_of_its_option(tmp_path: Path) -> None:
    (tmp_path / "kvquant.toml").write_text("profile = 'quick'\n")
    with pytest.raises(SettingsError, match=r"^--kv-profile: 'nightli' is none of quick"):
        settle({"profile": "nightli"}, config=None, root=tmp_path)


def test_pyproject_names_its_line_too(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.kvquant]\nctx = 512\ntypess = 3\n")
    with pytest.raises(SettingsError, match=r"pyproject.toml, line 3: unknown key 'typess'"):
        settle({}, config=None, root=tmp_path)


def test_a_variable_that_no_library_of_the_build_reads_is_named(tmp_path: Path) -> None:
    (tmp_path / "libggml.so").write_bytes(b"\0TURBO_LAYER_ADAPTIVE\0GGML_NO_BACKTRACE\0")
    assert names_in([tmp_path / "libggml.so"]) == {"TURBO_LAYER_ADAPTIVE", "GGML_NO_BACKTRACE"}
    build = Library(
        path=str(tmp_path / "libllama.so"), bindings="", python="", llama_version=None,
        ggml_version=None, ggml_commit=None, system_info=None, files=("libggml.so", "gone.so"),
        hash="", devices=(), types={},
    )  # fmt: skip
    assert unread({"TURBO_LAYER_ADAPTIVE": "1", "OMP_NUM_THREADS": "2"}, build) == []
    assert unread({"TURBO_LAYER_ADAPTIV": "1"}, build) == [
        "[environment] TURBO_LAYER_ADAPTIV: nothing of this build reads it; did you mean "
        "'TURBO_LAYER_ADAPTIVE'?"
    ]
