"""kvquant init: a file that says what was found, and that a run takes as it is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.cli.doctor_report import Remark, Report
from pytest_kvquant.cli.fixes import proposals
from pytest_kvquant.cli.init import lines
from pytest_kvquant.cli.main import main
from pytest_kvquant.config.resolver import resolve

NOTHING: dict[str, str | None] = {"model": None, "lib": None, "python": None, "corpus": None}


def report(types: tuple[str, ...] = ("f16", "q8_0", "q4_0", "turbo4", "turbo3")) -> Report:
    found = (Remark(name="model", text='a "quoted" model'), Remark(name="library", text="a build"))
    return Report(findings=found, pairs=(), types=types)


def text(typed: dict[str, str | None], folder: Path, types: tuple[str, ...] | None = None) -> str:
    found = report() if types is None else report(types)
    return "\n".join(lines(found, typed, folder)) + "\n"


def test_the_file_is_one_that_a_run_takes(tmp_path: Path) -> None:
    model = tmp_path / 'my "best" model.gguf'
    made = text({**NOTHING, "model": str(model), "lib": "/opt/llama/bin"}, tmp_path)
    (tmp_path / "kvquant.toml").write_text(made)
    settings = resolve({}, config=None, root=tmp_path, budgets=registry.budget_units())
    assert settings.model == model
    assert settings.lib == Path("/opt/llama/bin")
    assert settings.types == ("f16", "q8_0", "turbo4", "turbo3")


def test_links_and_names_of_models_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"")
    (tmp_path / "model.gguf").symlink_to(tmp_path / "blob")
    assert 'model = "model.gguf"' in text(
        {**NOTHING, "model": str(tmp_path / "model.gguf")}, tmp_path
    )
    assert 'model = "SmolLM2-135M"' in text({**NOTHING, "model": "SmolLM2-135M"}, tmp_path)


def test_what_was_found_is_said_without_the_folder_of_the_file(tmp_path: Path) -> None:
    """The file goes into a repository, and another checkout of it lies elsewhere."""
    seen = Remark(name="library", text=f"{tmp_path}/build/bin/libllama.so: llama.cpp 0.10.0")
    made = "\n".join(lines(Report(findings=(seen,), pairs=(), types=()), NOTHING, tmp_path))
    assert "# build/bin/libllama.so: llama.cpp 0.10.0" in made
    assert str(tmp_path) not in made


def test_every_comment_that_is_a_setting_is_one_that_a_run_takes(tmp_path: Path) -> None:
    made = text(NOTHING, tmp_path, ("f16", "q8_0", "q5_1", "q4_0"))
    settings = "\n".join(
        line.removeprefix("# ")
        for line in made.splitlines()
        if not line.startswith("#") or "=" in line or line.startswith("# [")
    )
    assert len(tomllib.loads(settings)) >= 10
    (tmp_path / "kvquant.toml").write_text(settings)
    assert resolve({}, config=None, root=tmp_path, budgets=registry.budget_units()).depths == (
        0,
        8192,
    )


def test_a_file_that_is_there_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kvquant.toml").write_text("seed = 3\n")
    assert main(["init"]) == 2
    assert "--force writes over it" in capsys.readouterr().err
    assert Path("kvquant.toml").read_text() == "seed = 3\n"


def test_a_fix_is_proposed_for_each_thing_that_is_wrong() -> None:
    wrong = {
        "library": "The bindings do not fit. llama-cpp-python 0.3.23 does.",
        "model": "no such file",
        "types": "'q9' is not a type of this library",
        "store": "the disk is full",
        "settings": "unknown key",
    }
    found = tuple(Remark(name=name, text=says, wrong=True) for name, says in wrong.items())
    fixes = proposals(Report(findings=found, pairs=(), types=("f16", "q8_0")), {})
    commands = [fix.command for fix in fixes]
    assert "llama-cpp-python==0.3.23" in commands[0]
    assert "--kv-types f16,q8_0" in commands[2]
    assert len(fixes) == len(wrong)
    assert all(any(says in fix.why for fix in fixes) for says in wrong.values())


def test_variables_that_a_run_drops_are_told_and_nothing_else() -> None:
    assert proposals(report(), {"HOME": "/root"}) == []
    (fix,) = proposals(report(), {"LLAMA_ARG_CACHE_TYPE_K": "q4_0", "GGML_X": "1"})
    assert fix.command == "unset GGML_X LLAMA_ARG_CACHE_TYPE_K"


def test_a_profile_and_pairs_that_were_given_are_set(tmp_path: Path) -> None:
    given = {**NOTHING, "profile": "quick", "pairs": "q8_0/q8_0, q8_0/q4_0"}
    (tmp_path / "kvquant.toml").write_text(text(given, tmp_path, ("f16", "q8_0", "q4_0")))
    settings = resolve({}, config=None, root=tmp_path, budgets=registry.budget_units())
    assert settings.profile == "quick"
    assert [str(pair) for pair in settings.pairs] == ["q8_0/q8_0", "q8_0/q4_0"]
