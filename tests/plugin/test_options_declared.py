"""The options of a matrix are declared where a word of the run may name one, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.outer import pytest_in

from pytest_kvquant.config.options import OPTIONS

PROBE = """
def pytest_configure(config):
    declared = hasattr(config.option, "kv_json")
    imported = "pytest_kvquant.config.options" in __import__("sys").modules
    print(f"declared={declared} imported={imported}")

def pytest_sessionstart(session):
    print(f"json={getattr(session.config.option, 'kv_json', None)}")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(PROBE)
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n")
    return tmp_path


def test_a_run_that_names_none_declares_none(project: Path) -> None:
    ran = pytest_in(project, "-s", "--tb=short", "test_one.py")
    assert "declared=False imported=False" in ran.text, ran.text
    assert ran.code == 0


@pytest.mark.parametrize("words", [("--kv-json=a b.json",), ("--kv-json", "a b.json")])
def test_an_option_without_a_matrix_is_read(project: Path, words: tuple[str, ...]) -> None:
    assert "json=a b.json" in pytest_in(project, "-s", *words, "test_one.py").text


def test_words_from_elsewhere_count(project: Path) -> None:
    ran = pytest_in(
        project, "-s", "test_one.py", environment={"PYTEST_ADDOPTS": "--kv-json e.json"}
    )
    assert "json=e.json" in ran.text, ran.text
    (project / "pytest.ini").write_text("[pytest]\naddopts = -s --kv-json=i.json\n")
    assert "json=i.json" in pytest_in(project, "test_one.py").text
    (project / "pytest.ini").unlink()
    (project / "words").write_text("-s\n--kv-json=f.json\n")
    assert "json=f.json" in pytest_in(project, "@words", "test_one.py").text
    assert (
        "json=o.json" in pytest_in(project, "-o", "addopts=-s --kv-json=o.json", "test_one.py").text
    )


@pytest.mark.parametrize("asked", ["--help", "-h", "-qh"])
def test_help_shows_them_all(project: Path, asked: str) -> None:
    told = pytest_in(project, asked).text
    assert not [option.flag for option in OPTIONS if option.flag not in told]


def test_a_mistyped_option_is_refused_as_ever(project: Path) -> None:
    ran = pytest_in(project, "--kv-jsn=x", "test_one.py")
    assert ran.code == 4
    assert "unrecognized arguments: --kv-jsn=x" in ran.text
