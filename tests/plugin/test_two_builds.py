"""Two builds compared. Here the second one is a copy of the bundled library in another folder."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
from support.run import cells_of, run, start

from pytest_kvquant.config.overrides import FloorOverride
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.config.speed_tests import NAMES
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.errors import LibraryError, SettingsError
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.session.builds import reference_engine

CLEAN = "q4_0/q8_0"
BRIEF = {"ctx": 64, "chunks": 3, "decode": 24, "trajectory": 0, "probe": "off", "coverage": "off"}


@pytest.fixture(scope="module")
def other_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled library under another path, ``…/other``."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    folder = tmp_path_factory.mktemp("build") / "other"
    shutil.copytree(Path(spec.origin).parent / "lib", folder)
    return folder


def drifting(where: str, change: str) -> str:
    """A hook: workers of the build whose path does (``in``) or does not hold ``other`` drift."""
    return f"""
_decode = Context.decode

def decoded(self, tokens, positions, sequences, outputs):
    logits = _decode(self, tokens, positions, sequences, outputs)
    if "other" {where} str(worker.library.path):
        noise = np.random.default_rng(len(tokens)).standard_normal(logits.shape, np.float32)
        logits = {change}
    return logits

Context.decode = decoded
"""


def failed(cell: Cell) -> set[str]:
    return {one.name for one in (*cell.gates, *cell.checks) if one.verdict == "fail"}


def test_the_same_build_twice_shows_no_drift(tmp_path: Path, other_build: Path) -> None:
    session = start(tmp_path, pairs=(CLEAN,), reference_lib=other_build, compare_cells=True)
    for pair in session.pairs:
        session.measure(pair)
    result = session.result()
    assert result.reference.library is not None
    assert Path(result.reference.library.path).parent == other_build
    assert result.reference.library.hash == result.environment.library.hash
    assert result.reference.computed == 2 * len(session.task.chunks)
    assert result.advice == ()
    for cell in cells_of(result).values():
        assert failed(cell) == set()
        assert cell.quality is not None
        assert cell.quality.prefill.kl_mean == 0.0
        assert cell.quality.decode is not None
        assert cell.quality.decode.kl_mean == 0.0
        assert "active" not in {check.name for check in cell.checks}
    drift = session.bounds.budgets(REFERENCE)
    assert 0 < drift["kl_mean"] < 0.01
    assert "same files" in " ".join(session._observer.notes)


@pytest.mark.parametrize("where", ["in", "not in"])
def test_a_drift_of_the_f16_path_is_seen_whichever_build_it_is_in(
    tmp_path: Path, other_build: Path, where: str
) -> None:
    hook = drifting(where, "logits + 0.3 * noise")
    cells = run(tmp_path, "f16/f16", **BRIEF, hook=hook, reference_lib=other_build)
    assert {"kl_mean", "decode_kl_mean"} <= failed(cells["f16/f16"])


def test_a_difference_of_rounding_is_no_drift(tmp_path: Path, other_build: Path) -> None:
    hook = drifting("in", "logits + 0.005 * noise")
    cells = run(tmp_path, "f16/f16", **BRIEF, hook=hook, reference_lib=other_build)
    cell = cells["f16/f16"]
    assert failed(cell) == set()
    assert cell.quality is not None
    assert cell.quality.prefill.kl_mean > 0


def test_with_one_build_f16_has_to_be_identical(tmp_path: Path) -> None:
    hook = """
_init, _decode = Context.__init__, Context.decode

def decoded(self, tokens, *rest):
    logits = _decode(self, tokens, *rest)
    # 128 tokens with KV cells for several sequences: the prefill of a cell or of the reference.
    return logits * np.float32(1 + 1e-4) if worker.planted else logits

_score = worker.on_score
worker.planted = False
def scored(message):
    # The second time that this process is asked for its census it is a cell.
    worker.planted = worker.is_cell
    _score(message)
worker.on_score = scored
_census = worker.on_census
worker.is_cell = False
def census_taken(message):
    worker.is_cell = True
    _census(message)
worker.on_census = census_taken
Context.decode = decoded
"""
    assert "kl_mean" in failed(run(tmp_path, "f16/f16", **BRIEF, hook=hook)["f16/f16"])


def test_drift_budgets_are_a_table_of_their_own(tmp_path: Path, other_build: Path) -> None:
    session = start(
        tmp_path,
        pairs=(CLEAN,),
        reference_lib=other_build,
        budgets={"*/*": {"kl_mean": 0.3}},
        drift={"f16/*": {"kl_mean": 0.02}},
    )
    budgets = session.bounds.budgets(REFERENCE)
    assert (budgets["kl_mean"], budgets["decode_kl_mean"]) == (0.02, 0.04)
    assert session.bounds.budgets(session.pairs[1])["kl_mean"] == 0.3


SPEEDS = Path(__file__).parents[1] / "support" / "speeds.py"


@pytest.mark.parametrize("same_pair", [True, False], ids=["same pair", "f16"])
def test_the_speed_of_a_build_is_measured_against_the_other(
    tmp_path: Path, other_build: Path, same_pair: bool
) -> None:
    """The measured build lost a fifth of its decode speed for one pair; time is planted."""
    slow = {CLEAN: {"tg": 1.25, "build": "llama_cpp"}}
    session = start(
        tmp_path, **BRIEF, pairs=(CLEAN,), reference_lib=other_build, compare_cells=same_pair,
        environment={HOOK: str(SPEEDS)}, shell={"KVQUANT_SPEEDS": json.dumps(slow)},
        **{**dict.fromkeys(NAMES, 0), "pp": 8, "tg": 2}, sample=0.002,
        depths=(0, 16), floors={"*/*": FloorOverride(pp=0.95, tg=0.95)},
    )  # fmt: skip
    found = {str(pair): session.speed.measure(pair) for pair in session.pairs}
    assert found["f16/f16"].verdict == "pass"
    cell = found[CLEAN]
    assert [(test.kind, test.verdict) for test in cell.tests] == [
        ("pp", "pass"), ("tg", "fail"), ("pp", "pass"), ("tg", "fail"),
    ]  # fmt: skip
    against = f"{CLEAN if same_pair else 'f16/f16'} of the reference build"
    for test in cell.tests:
        assert test.ratio == pytest.approx(0.8 if test.kind == "tg" else 1)
        assert f"of the speed of {against}" in test.text
    assert set(cell.prefilled) == {CLEAN, against}
    assert all(count == 16 for counts in cell.prefilled.values() for count in counts)


def test_references_of_two_builds_are_kept_apart(tmp_path: Path, other_build: Path) -> None:
    changed = tmp_path / "other"
    shutil.copytree(other_build, changed)
    library = (changed / "libllama.so") if (changed / "libllama.so").exists() else None
    if library is None:
        pytest.skip("the bundled library is no .so here")
    with library.resolve().open("ab") as file:
        file.write(b"\0" * 16)  # another hash, the same code
    first = start(tmp_path, pairs=("f16/f16",), **BRIEF)
    first.measure(REFERENCE)
    second = start(tmp_path, pairs=("f16/f16",), **BRIEF, reference_lib=changed)
    second.measure(REFERENCE)
    assert second.ready.reference_library.hash != second.library.hash
    assert second.result().reference.reused == 0
    third = start(tmp_path, pairs=("f16/f16",), **BRIEF, reference_lib=changed)
    third.measure(REFERENCE)
    assert third.result().reference.computed == 0


def test_another_interpreter_brings_its_own_packages(tmp_path: Path, other_build: Path) -> None:
    """A second environment with bindings of its own, made of links into this one."""
    folder = tmp_path / "own"
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    for name in ("numpy", "llama_cpp"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        shutil.copytree(package, site / name, symlinks=True)
        for beside in package.parent.glob(f"{name}*"):
            if beside.name != name:
                (site / beside.name).symlink_to(beside)
    information = next(site.glob("llama_cpp_python*"), None)
    if information is None:
        source = next(Path(site_of("llama_cpp")).glob("llama_cpp_python*.dist-info"))
        (site / source.name).symlink_to(source)
    session = start(
        tmp_path, pairs=("f16/f16",), **BRIEF, reference_lib=other_build,
        reference_python=folder / "bin" / "python",
    )  # fmt: skip
    assert session.measure(REFERENCE).verdict == "pass"
    own = start(tmp_path, pairs=("f16/f16",), **BRIEF, python=folder / "bin" / "python")
    assert own.library.path.startswith(str(site))


def site_of(name: str) -> str:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parents[1])


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"reference_lib": Path("/nowhere")}, LibraryError, "--kv-reference-lib: There is no"),
        ({"python": Path("/nowhere/python")}, SettingsError, "--kv-python /nowhere/python"),
        ({"python": Path("/bin/true")}, LibraryError, "/bin/true"),
    ],
)
def test_what_cannot_work_is_refused_in_words(
    tmp_path: Path, options: dict[str, Path], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        start(tmp_path, pairs=("f16/f16",), **BRIEF, **options)


@pytest.mark.parametrize("name", ["compare_cells", "reference_python"])
def test_options_of_another_build_need_one(name: str) -> None:
    value = Path("/bin/true") if name.endswith("python") else True
    with pytest.raises(SettingsError, match="--kv-reference-lib"):
        reference_engine(Settings(**{name: value}), scrub({}, {}))
