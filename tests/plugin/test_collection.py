"""What ``pytest --kv-matrix`` collects, and what the plugin costs without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.outer import SMALL, pytest_in

from pytest_kvquant.results.file import read

USERS_TEST = """
def test_mine(): pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_users.py").write_text(USERS_TEST)
    (tmp_path / "test_stray.py").write_text(USERS_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    return tmp_path


def collected(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "::" in line]


def test_without_paths_the_packaged_suite_and_nothing_else(project: Path) -> None:
    runs = [
        pytest_in(project, "--kv-matrix", "--collect-only", "-q", *SMALL, "--kv-types=f16,q4_0",
                  environment={"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]  # fmt: skip
    assert [run.code for run in runs] == [0, 0], runs[0].text
    one, other = (collected(run.text) for run in runs)
    assert one == other
    assert "test_mine" not in runs[0].text
    assert all("test_" in line and "[" in line for line in one)
    files = {line.partition("::")[0].rpartition("/")[2] for line in one}
    assert {"test_identity.py", "test_quality.py"} <= files
    cells = [line.partition("test_kl_divergence")[2] for line in one if "kl_divergence" in line]
    assert cells == ["[f16/f16]", "[f16/q4_0]", "[q4_0/f16]", "[q4_0/q4_0]"]


@pytest.mark.parametrize(
    ("words", "there"),
    [([], False), (["--kv-ceiling"], True), (["--kv-profile=nightly"], True)],
    ids=["pr", "asked for", "nightly"],
)
def test_ceilings_are_searched_at_night_or_when_asked_for(
    project: Path, words: list[str], there: bool
) -> None:
    run = pytest_in(
        project, "--kv-matrix", "--collect-only", "-q", *SMALL, "--kv-pairs=q4_0/q8_0", *words
    )
    assert run.code == 0, run.text
    found = [line for line in collected(run.text) if "test_context_ceiling" in line]
    assert [line.partition("[")[2] for line in found] == ["f16/f16]", "q4_0/q8_0]"] * there


def test_a_ceiling_is_searched_and_held_against_its_floor(project: Path) -> None:
    (project / "kvquant.toml").write_text('[floors."q4_0/*"]\ncontext = 1024\n')
    run = pytest_in(
        project, "--kv-matrix", *SMALL, "--kv-pairs=q4_0/q8_0", "--kv-ceiling",
        "--kv-ceiling-max=512", "-k", "context_ceiling", "--kv-json=r.json", "-rs",
    )  # fmt: skip
    assert run.code == 0, run.text
    assert "1 passed, 1 skipped" in run.counts
    assert "q4_0/q8_0: 512 tokens work, the largest tried" in " ".join(run.text.split())
    ceilings = read(project / "r.json").ceilings
    assert [(one.pair, one.tokens, one.floor, one.verdict) for one in ceilings] == [
        ("f16/f16", 512, 1, "pass"), ("q4_0/q8_0", 512, 1024, "inconclusive"),
    ]  # fmt: skip


def test_with_paths_those_and_the_fixtures_work_there(project: Path) -> None:
    (project / "tests" / "test_users.py").write_text(
        "def test_mine(kv_cell, kv_quality, kv_matrix):\n"
        "    figures = kv_quality.figures\n"
        "    assert kv_matrix.measure(kv_cell).pair == str(kv_cell)\n"
        "    assert figures.kl_mean < 0.05, figures.kl_mean\n"
        "    assert figures.tokens == 2 * 31\n"
        "def test_plain(): pass\n"
    )
    run = pytest_in(project, "--kv-matrix", "tests", "-v", *SMALL, "--kv-pairs=q4_0/q8_0",
                    f"--kv-store={project / 'store'}")  # fmt: skip
    assert run.code == 0, run.text
    assert "test_mine[f16/f16] " in run.text
    assert "test_mine[q4_0/q8_0] " in run.text
    assert "3 passed" in run.counts
    assert "test_kl_divergence" not in run.text


def test_without_the_option_nothing_happens(project: Path) -> None:
    (project / "conftest.py").write_text(
        "import sys\n"
        "def pytest_unconfigure(config):\n"
        "    heavy = {'numba', 'scipy', 'llama_cpp', 'msgspec', 'gguf'}\n"
        "    heavy |= {'pytest_kvquant.session.run'}\n"
        "    print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    (project / "tests" / "test_users.py").write_text(
        "def test_mine(kv_quality): pass\ndef test_plain(): pass\n"
    )
    (project / "kvquant.toml").write_text("this is not even TOML")
    run = pytest_in(project, "-rs", "-p", "no:hypothesispytest")
    assert run.code == 0, run.text
    assert "HEAVY []" in run.text
    assert "kvquant:" not in run.text
    assert "KV-cache matrix" not in run.text
    assert "1 passed, 1 skipped" in run.text
    assert "KV-cache pairs are measured with --kv-matrix" in run.text


def test_a_path_after_an_option_does_not_move_the_project(project: Path, tmp_path: Path) -> None:
    """pytest takes it for a path to tests, and its folder for the root."""
    elsewhere = tmp_path / "models"
    elsewhere.mkdir()
    (elsewhere / "corpus.txt").write_text("words ")
    (project / "kvquant.toml").write_text("ctxx = 1")
    run = pytest_in(project, "--kv-matrix", "--kv-corpus", str(elsewhere / "corpus.txt"))
    assert run.code == 4, run.text
    assert "'ctxx'" in run.text


def test_a_selection_measures_only_its_cells(project: Path) -> None:
    run = pytest_in(
        project, "--kv-matrix", "-v", *SMALL, "--kv-types=f16,q4_0,q8_0",
        f"--kv-store={project / 'store'}", f"--kv-json={project / 'r.json'}",
        "-k", "test_measured and q4_0/q8_0",
    )  # fmt: skip
    assert run.code == 0, run.text
    assert "1 passed" in run.counts
    assert "1/1 q4_0/q8_0" in run.text
    from support.outer import figures

    assert set(figures(project / "r.json")) == {"q4_0/q8_0"}


def test_from_a_virtual_environment_inside_the_project(project: Path) -> None:
    """pytest leaves virtual environments out when it collects; the suite lies in one."""
    import shutil

    import pytest_kvquant

    site = project / ".venv" / "lib" / "python3" / "site-packages"
    (project / ".venv" / "pyvenv.cfg").parent.mkdir(parents=True)
    (project / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (project / ".venv" / "bin").mkdir()
    (project / ".venv" / "bin" / "activate").touch()
    shutil.copytree(
        Path(pytest_kvquant.__file__).parent, site / "pytest_kvquant",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    run = pytest_in(
        project, "--kv-matrix", "--collect-only", "-q", *SMALL, "--kv-pairs=q4_0/q8_0",
        environment={"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert run.code == 0, run.text
    found = collected(run.text)
    assert any("test_kl_divergence[q4_0/q8_0]" in line for line in found)
    assert all(".venv" in line for line in found)
