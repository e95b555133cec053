"""Baselines on the real engine: accepted, compared, kept from harm."""

from __future__ import annotations

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.outer import CI_VARIABLES, Outcome, pytest_in
from support.run import PREAMBLE

from pytest_kvquant.baselines import file
from pytest_kvquant.machine.environment import WORKER_HOOK

RUN = (
    "-p", "no:cacheprovider", "--kv-matrix", "-k", "test_baseline", "-rs",
    "--kv-ctx=128", "--kv-chunks=8", "--kv-order=sequential", "--kv-speed=off", "--kv-decode=0",
    "--kv-trajectory=0", "--kv-probe=off", "--kv-coverage=off", "--kv-types=q4_0", "--kv-threads=1",
)  # fmt: skip

CELL, F16, ORPHAN = "q4_0-q4_0.json", "f16-f16.json", "q9_9-q9_9.json"

AMPLIFIED = """
_clear, _close = Context.clear, Context.close

def opened(self, model, *, type_k, type_v, **shape):
    _open(self, model, type_k=type_k, type_v=type_v, **shape)
    self.twin = None
    if (type_k, type_v) != ("f16", "f16"):
        self.twin = object.__new__(Context)
        _open(self.twin, model, type_k="f16", type_v="f16", **shape)

def decoded(self, *batch):
    logits = _decode(self, *batch)
    if getattr(self, "twin", None) is None:
        return logits
    reference = _decode(self.twin, *batch)
    return reference + np.float32(FACTOR**0.5) * (logits - reference)

def cleared(self):
    _clear(self)
    if getattr(self, "twin", None) is not None:
        _clear(self.twin)

def closed(self):
    _close(self)
    if getattr(self, "twin", None) is not None:
        _close(self.twin)

Context.__init__, Context.decode = opened, decoded
Context.clear, Context.close = cleared, closed
"""
"""A build whose quantized cells are as far from f16 as before, times a factor: the KL grows by it,
because it is quadratic in the distance."""


class Project:
    """A folder with baselines, and runs in it."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self._store = folder, store
        (folder / "pytest.ini").write_text("[pytest]\n")
        self._hook = folder / "hook.py"
        (folder / "kvquant.toml").write_text(f"[environment]\n{WORKER_HOOK} = '{self._hook}'\n")

    @property
    def place(self) -> Path:
        (hardware,) = (self.folder / "baselines").iterdir()
        return hardware / "kvq-mini" / "corpus-c128"

    def run(
        self, *options: str, kl: float | None = None, apart: bool = False, **shell: str
    ) -> Outcome:
        """Run the baseline tests, in this process or ``apart``, with the KL times a factor."""
        planted = "" if kl is None else PREAMBLE + AMPLIFIED.replace("FACTOR", str(kl))
        self._hook.write_text(planted)
        words = [*RUN, f"--kv-store={self._store}", *options]
        if apart:
            return pytest_in(self.folder, *words, environment=shell)
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            for name in CI_VARIABLES:
                patch.delenv(name, raising=False)
            for name, value in {"COLUMNS": "400", **shell}.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            code = pytest.main(["-p", "no:capture", *words])
        return Outcome(code, out.getvalue())

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.place.iterdir())}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Project:
    """A project with accepted baselines; its tests leave them as they are."""
    project = Project(tmp_path_factory.mktemp("accepted"), store)
    run = project.run("--snapshot-update")
    assert run.code == 0, run.text
    assert "2 snapshots generated" in run.text
    assert "baselines: 2 accepted" in run.text
    assert list(project.files()) == [F16, CELL]
    return project


def test_none_is_told_with_the_command_that_accepts_one(tmp_path: Path, store: Path) -> None:
    project = Project(tmp_path, store)
    run = project.run()
    assert run.code == 0, run.text
    assert "q4_0/q4_0: no baseline was accepted yet" in run.text
    assert "--kv-pairs q4_0/q4_0 --snapshot-update" in run.text
    assert not (tmp_path / "baselines").exists()
    strict = project.run("--kv-strict", "--snapshot-update", CI="true")
    assert strict.code == 1
    assert "on a machine where CI is not set" in strict.text
    assert not (tmp_path / "baselines").exists()


def test_the_same_again_is_equal_to_the_last_bit_with_syrupy_or_without(accepted: Project) -> None:
    before = accepted.files()
    for options in (("-p", "no:syrupy"), ("--snapshot-update",)):
        run = accepted.run(*options)
        assert run.code == 0, run.text
        assert "baselines: 2 equal to the last bit" in run.text
    assert accepted.files() == before


def test_another_rounding_is_a_change_and_no_drift(accepted: Project) -> None:
    run = accepted.run("--kv-ubatch=32", "--kv-threads=2")
    assert run.code == 0, run.text
    assert "q4_0/q4_0: changed, within tolerance (other threads, n_ubatch)" in run.text


def test_six_percent_are_caught_and_two_are_not(accepted: Project) -> None:
    before = accepted.files()
    caught = accepted.run(kl=1.06)
    assert caught.code == 1
    assert "q4_0/q4_0: worse than the baseline (under the same conditions): KL" in caught.text
    assert "tolerated 5.0 %" in caught.text
    assert "1 failed, 1 passed" in caught.counts
    small = accepted.run("--snapshot-update", kl=1.02)
    assert small.code == 0, small.text
    assert "q4_0/q4_0: changed, within tolerance (under the same conditions)" in small.text
    assert accepted.files() == before, "a match within tolerance is not rewritten"


def test_a_ratchet_proposes_what_got_better_and_takes_nothing_back(accepted: Project) -> None:
    before, proposed = accepted.files(), accepted.folder / "baselines-proposed"
    better = accepted.run(kl=1 / 1.1)
    assert better.code == 1
    assert "× its noise" in better.text
    for shell in ({}, {"CI": "true"}):
        run = accepted.run("--kv-ratchet", kl=1 / 1.1, **shell)
        assert run.code == 0, run.text
        assert "q4_0/q4_0: better than the baseline" in run.text
        assert "baselines: 1 equal to the last bit, 1 better and proposed" in run.text
    (new,) = proposed.rglob("*.json")
    assert new.relative_to(proposed) == (accepted.place / CELL).relative_to(
        accepted.folder / "baselines"
    )
    old = file.decode((accepted.place / CELL).read_text(), "old")
    taken = file.decode(new.read_text(), "new")
    assert taken.summary.kl_mean == pytest.approx(old.summary.kl_mean / 1.1, rel=0.01)
    worse = accepted.run("--kv-ratchet", kl=1.2)
    assert worse.code == 1, "a ratchet turns one way only"
    assert accepted.files() == before


def test_a_drift_is_accepted_when_asked_for_and_orphans_stay(tmp_path: Path, store: Path) -> None:
    project = Project(tmp_path, store)
    first = project.run("--snapshot-update", kl=1.15)
    assert first.code == 0, first.text
    drifted = project.files()
    orphan = project.place / ORPHAN
    orphan.write_text("{}")
    run = project.run("--snapshot-update")
    assert run.code == 0, run.text
    assert "1 snapshot updated" in run.text
    assert f"baselines of no cell of this matrix, in {project.place}: {ORPHAN};" in run.text
    after = project.files()
    assert after.pop(ORPHAN) == b"{}"
    assert after[F16] == drifted[F16]
    assert after[CELL] != drifted[CELL]


def test_damage_is_a_failure_and_an_update_does_not_cover_it(tmp_path: Path, store: Path) -> None:
    project = Project(tmp_path, store)
    assert project.run("--snapshot-update").code == 0
    path = project.place / CELL
    path.write_text("<<<<<<< HEAD\n" + path.read_text())
    before = project.files()
    run = project.run("--snapshot-update")
    assert run.code == 1
    assert f"{CELL} is not a baseline: JSON is malformed" in run.text
    assert project.files() == before


def test_garbage_is_not_accepted(tmp_path: Path, store: Path) -> None:
    run = Project(tmp_path, store).run("--snapshot-update", kl=400.0)
    assert run.code == 1
    assert "q4_0/q4_0 is not accepted as a baseline: it fails kl_mean" in run.text
    assert [path.name for path in tmp_path.rglob("*.json")] == [F16]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path, store: Path) -> None:
    (tmp_path / "baselines").symlink_to(tmp_path / "gone")  # unwritable even for root
    run = Project(tmp_path, store).run("--snapshot-update")
    assert run.code == 1
    (line,) = [one for one in run.text.splitlines() if one.startswith("q4_0/q4_0: the baseline")]
    assert line.endswith("could not be written: File exists.")
    assert "Traceback" not in run.text


def test_two_updates_at_once_lose_nothing(tmp_path: Path, store: Path) -> None:
    project = Project(tmp_path, store)
    pairs = ("q4_0/q4_0", "q8_0/q8_0")
    with ThreadPoolExecutor(2) as pool:
        update = ("--snapshot-update",)
        options = [(*update, f"--kv-pairs={pair}") for pair in pairs]
        runs = list(pool.map(lambda one: project.run(*one, apart=True), options))
    assert [run.code for run in runs] == [0, 0], runs[0].text + runs[1].text
    assert list(project.files()) == [F16, CELL, "q8_0-q8_0.json"]
    for name, data in project.files().items():
        assert file.decode(data.decode(), name)
