"""The store of f16 logits: exact, checked, bounded, and safe with two runs at once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvquant.inputs.reference_store import Reference, ReferenceStore
from pytest_kvquant.inputs.store_folder import MARK, SUBFOLDER, StoreError

ROWS, VOCABULARY = 3, 50
CHUNK = ROWS * VOCABULARY * 4
LIMIT = 1 << 20
SPAWN = multiprocessing.get_context("spawn")


def group(seed: int, chunks: int = 2) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.random.default_rng(seed).integers(0, 99, (chunks, 8), dtype=np.int32)


def logits(seed: int, chunks: int = 2) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(1000 + seed)
    return rng.standard_normal((chunks, ROWS, VOCABULARY)).astype(np.float32)


def opened(root: Path, name: str = "m", limit: int = LIMIT) -> Reference:
    return ReferenceStore(root, limit).open({"model": name}, rows=ROWS, vocabulary=VOCABULARY)


def fill(reference: Reference, seed: int) -> None:
    """Compute one group as a run does: look, make room, write block by block."""
    with reference.exclusively():
        if reference.missing([group(seed)]):
            reference.evict([group(seed)])
            with reference.writing(group(seed)) as writer:
                for chunk in logits(seed):
                    writer.append(chunk[:2])
                    writer.append(chunk[2:])


def stored(root: Path) -> list[Path]:
    return sorted(root.rglob("*.f32"))


def folders(root: Path) -> set[str]:
    return {path.parent.name for path in stored(root)}


class TestExactness:
    def test_what_was_written_comes_back_to_the_last_bit(self, tmp_path: Path) -> None:
        first = opened(tmp_path)
        fill(first, 1)
        again = opened(tmp_path)
        assert again.missing([group(1)]) == []
        for reference in (first, again):
            for within in range(2):
                rows = reference.rows(group(1), within, 1, 2)
                np.testing.assert_array_equal(rows, logits(1)[within, 1:3])
        assert (first.usage.computed, first.usage.reused) == (2, 0)
        assert (again.usage.computed, again.usage.reused) == (0, 2)

    def test_odd_floats_survive(self, tmp_path: Path) -> None:
        odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32)
        values = np.resize(odd, (1, ROWS, VOCABULARY))
        reference = opened(tmp_path)
        with reference.exclusively(), reference.writing(group(1, 1)) as writer:
            writer.append(values[0])
        assert reference.rows(group(1, 1), 0, 0, ROWS).tobytes() == values.tobytes()

    def test_tokens_and_identity_both_count(self, tmp_path: Path) -> None:
        fill(opened(tmp_path, "one"), 1)
        assert opened(tmp_path, "one").missing([group(2), group(1)]) == [0]
        assert opened(tmp_path, "two").missing([group(1)]) == [0]

    def test_nothing_is_visible_until_all_of_it_is_there(self, tmp_path: Path) -> None:
        reference = opened(tmp_path)

        def interrupted() -> None:
            with reference.writing(group(1)) as writer:
                writer.append(logits(1)[0])
                assert stored(tmp_path) == []
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert stored(tmp_path) == []
        assert list(tmp_path.rglob(".writing-*")) == []
        assert reference.usage.computed == 0

    def test_sizes_of_today_do_not_overflow(self, tmp_path: Path) -> None:
        store = ReferenceStore(tmp_path, LIMIT)
        large = store.open({}, rows=32767, vocabulary=248320)
        assert large.size(np.zeros((4, 65536), np.int32)) == 4 * 32767 * 248320 * 4


class TestDamage:
    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def test_any_changed_byte_is_found(self, tmp_path_factory: Any, data: st.DataObject) -> None:
        root = tmp_path_factory.mktemp("store")
        fill(opened(root), 1)
        (path,) = stored(root)
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        reference = opened(root)
        assert reference.missing([group(1)]) == [0]
        assert (reference.usage.damaged, reference.usage.reused) == (2, 0)

    @pytest.mark.parametrize("size", [0, 1, CHUNK, 2 * CHUNK, 2 * CHUNK + 19, 2 * CHUNK + 21])
    def test_another_length_is_found(self, size: int, tmp_path: Path) -> None:
        fill(opened(tmp_path), 1)
        (path,) = stored(tmp_path)
        path.write_bytes(path.read_bytes()[:size].ljust(size, b"\0"))
        assert opened(tmp_path).missing([group(1)]) == [0]

    def test_it_is_computed_again_and_counted(self, tmp_path: Path) -> None:
        fill(opened(tmp_path), 1)
        (path,) = stored(tmp_path)
        path.write_bytes(b"rubbish")
        reference = opened(tmp_path)
        fill(reference, 1)
        assert (reference.usage.damaged, reference.usage.computed) == (2, 2)
        assert opened(tmp_path).missing([group(1)]) == []
        np.testing.assert_array_equal(reference.rows(group(1), 0, 0, ROWS), logits(1)[0])

    def test_a_file_that_vanishes_in_use_is_said(self, tmp_path: Path) -> None:
        reference = opened(tmp_path)
        fill(reference, 1)
        stored(tmp_path)[0].unlink()
        with pytest.raises(StoreError, match="vanished or was cut"):
            reference.rows(group(1), 0, 0, ROWS)

    def test_what_a_killed_run_left_is_swept(self, tmp_path: Path) -> None:
        reference = opened(tmp_path)
        (reference._folder / ".writing-abc").write_bytes(b"x" * 5000)
        fill(reference, 1)
        assert list(tmp_path.rglob(".writing-*")) == []


class TestLimit:
    def age(self, root: Path) -> None:
        """Let everything look a minute older."""
        for folder in root.iterdir():
            if folder.is_dir():
                before = folder.stat().st_mtime - 60
                os.utime(folder, (before, before))

    def three(self, root: Path) -> list[str]:
        names = []
        for name in ("one", "two", "three"):
            fill(opened(root, name), 1)
            names += [new for new in folders(root) if new not in names]
            self.age(root)
        return names

    def test_the_one_unused_for_longest_goes_first(self, tmp_path: Path) -> None:
        one, two, three = self.three(tmp_path)
        fill(opened(tmp_path, "four", limit=3 * (2 * CHUNK + 100)), 1)
        assert {two, three} < folders(tmp_path)
        assert one not in folders(tmp_path)

    def test_use_makes_young(self, tmp_path: Path) -> None:
        one, two, three = self.three(tmp_path)
        assert opened(tmp_path, "one").missing([group(1)]) == []
        fill(opened(tmp_path, "four", limit=3 * (2 * CHUNK + 100)), 1)
        assert {one, three} < folders(tmp_path)
        assert two not in folders(tmp_path)

    def test_what_a_run_uses_stays(self, tmp_path: Path) -> None:
        used = opened(tmp_path, "one")
        fill(used, 1)
        self.age(tmp_path)
        fill(opened(tmp_path, "two"), 1)
        fill(opened(tmp_path, "three", limit=2 * (2 * CHUNK + 500)), 1)
        np.testing.assert_array_equal(used.rows(group(1), 0, 0, ROWS), logits(1)[0])
        assert len(folders(tmp_path)) == 2

    def test_more_than_the_limit_is_refused_with_what_to_do(self, tmp_path: Path) -> None:
        said = r"needs 1\.2e-06 GB, more than --kv-store-limit 5e-07 GB; raise it, or lower"
        with pytest.raises(StoreError, match=said):
            fill(opened(tmp_path, limit=500), 1)
        assert stored(tmp_path) == []

    def test_others_in_use_are_named_as_the_cause(self, tmp_path: Path) -> None:
        used = opened(tmp_path, "one")
        fill(used, 1)
        with pytest.raises(StoreError, match="while other runs use"):
            fill(opened(tmp_path, "two", limit=2 * CHUNK + 1000), 1)
        assert used.missing([group(1)]) == []


def snapshot(root: Path) -> dict[Path, bytes]:
    """Every file below a folder, links not followed."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {path: path.read_bytes() for path in files}


def crowd(root: Path) -> None:
    """Three references, one after another, where one has room."""
    for name in ("one", "two", "three"):
        fill(opened(root, name, limit=2 * CHUNK + 500), 1)


class TestFilesOfOthers:
    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        """A folder with a user's things, of names like ours among them."""
        for name in ("thesis.txt", "photos/a.f32", f"{'0' * 24}/identity.json", "lock/x", "c/d/e"):
            (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "home" / name).write_text("mine" * 1000)
        return tmp_path / "home"

    def test_a_folder_with_other_things_keeps_them(self, home: Path) -> None:
        before = snapshot(home)
        crowd(home)
        assert before.items() <= snapshot(home).items()
        assert {path.parent.parent for path in stored(home) if path.stat().st_size < 2000} == {
            home / SUBFOLDER
        }
        assert len(list((home / SUBFOLDER).glob("*/*.f32"))) == 1

    def test_an_empty_folder_is_marked(self, tmp_path: Path) -> None:
        crowd(tmp_path)
        tag = (tmp_path / "CACHEDIR.TAG").read_text()
        assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
        assert (tmp_path / MARK).is_file()

    def test_things_put_into_a_store_stay_and_do_not_count(self, tmp_path: Path) -> None:
        crowd(tmp_path)
        (tmp_path / "mine").mkdir()
        own = tmp_path / folders(tmp_path).pop() / "notes.txt"
        for path in (tmp_path / "mine" / "big", tmp_path / "mine.txt", own):
            path.write_bytes(b"x" * LIMIT)
        before = {path: text for path, text in snapshot(tmp_path).items() if b"xx" in text}
        crowd(tmp_path)
        assert len(before) == 3
        assert before.items() <= snapshot(tmp_path).items()
        assert ReferenceStore(tmp_path, LIMIT).used() < 2 * CHUNK + 500

    def test_a_store_of_before_the_mark_is_taken_over(self, tmp_path: Path) -> None:
        fill(opened(tmp_path, "one"), 1)
        for name in (MARK, "CACHEDIR.TAG"):
            (tmp_path / name).unlink()
        assert opened(tmp_path, "one").missing([group(1)]) == []
        assert (tmp_path / MARK).is_file()

    def test_links_out_of_a_store_are_not_followed(self, home: Path, tmp_path: Path) -> None:
        root = tmp_path / "store"
        crowd(root)
        (root / "home").symlink_to(home)
        (root / ("a" * 24)).symlink_to(home)
        reference = root / folders(root).pop()
        for name in ("use-" + "b" * 32, ".writing-abc", "c" * 24 + ".f32", "identity.json"):
            (reference / name).unlink(missing_ok=True)
            (reference / name).symlink_to(home / "thesis.txt")
        before = snapshot(home)
        assert ReferenceStore(root, LIMIT).used() == 0
        crowd(root)
        assert snapshot(home) == before

    def test_a_stored_group_that_is_a_link_is_replaced(self, home: Path, tmp_path: Path) -> None:
        root = tmp_path / "store"
        fill(opened(root), 1)
        (path,) = stored(root)
        shutil.copy(path, home / "copy")
        path.unlink()
        path.symlink_to(home / "copy")
        before = snapshot(home)
        reference = opened(root)
        assert reference.missing([group(1)]) == [0]
        fill(reference, 1)
        assert snapshot(home) == before
        assert not path.is_symlink()

    def test_links_in_place_of_what_is_written_are_refused(
        self, home: Path, tmp_path: Path
    ) -> None:
        before = snapshot(home)
        fill(opened(tmp_path / "a"), 1)
        (tmp_path / "a" / "lock").unlink()
        (tmp_path / "a" / "lock").symlink_to(home / "thesis.txt")
        (tmp_path / "b").mkdir()
        fill(opened(tmp_path / "b"), 1)
        folder = tmp_path / "b" / folders(tmp_path / "b").pop()
        shutil.rmtree(folder)
        folder.symlink_to(home)
        (tmp_path / "c").mkdir()
        (tmp_path / "c" / "mine").write_text("")
        (tmp_path / "c" / SUBFOLDER).symlink_to(home)
        for name in "abc":
            with pytest.raises(StoreError, match="is a symbolic link"):
                opened(tmp_path / name)
        assert snapshot(home) == before

    def test_a_subfolder_of_somebody_else_is_refused(self, home: Path) -> None:
        (home / SUBFOLDER).mkdir()
        (home / SUBFOLDER / "mine").write_text("")
        with pytest.raises(StoreError, match=r"holds other things .*--kv-store"):
            opened(home)


class TestDisk:
    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for root in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(StoreError, match=r"cannot be written .*--kv-store"):
                ReferenceStore(root, LIMIT)

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
    def test_a_folder_that_cannot_be_written(self) -> None:
        """Root may write everywhere but there."""
        with pytest.raises(StoreError, match=r"/proc/self cannot be written .*--kv-store"):
            ReferenceStore(Path("/proc/self"), LIMIT)

    def test_a_disk_known_to_be_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        full = shutil.disk_usage(tmp_path)._replace(free=100)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)
        with pytest.raises(StoreError, match=r"has 1e-07 GB free; choose another folder with"):
            fill(opened(tmp_path), 1)

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        folder = tmp_path / "disk"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
        mounted = shutil.which("mount") and subprocess.run(mount, check=False, capture_output=True)
        if not mounted or mounted.returncode:
            pytest.skip("a small file system cannot be mounted here")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    def test_a_disk_that_fills_up_in_the_middle(
        self, small_disk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Somebody else takes the space after it was found free."""
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40)
        )
        self.fails_in_the_middle(small_disk)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_device_that_is_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.fdopen

        def onto_full(handle: int, mode: str) -> Any:
            os.dup2(os.open("/dev/full", os.O_WRONLY), handle)
            return real(handle, mode)

        monkeypatch.setattr("pytest_kvquant.inputs.reference_store.os.fdopen", onto_full)
        self.fails_in_the_middle(tmp_path)

    def fails_in_the_middle(self, root: Path) -> None:
        reference = opened(root)

        def write() -> None:
            with reference.exclusively(), reference.writing(group(1, 256)) as writer:
                for chunk in logits(1, 256):
                    writer.append(chunk)

        with pytest.raises(StoreError, match=r"failed \(No space left on device\); free space"):
            write()
        assert stored(root) == []
        assert list(root.rglob(".writing-*")) == []
        assert reference.usage.computed == 0


def compute_slowly(root: str, started: Any, done: Any) -> None:
    reference = opened(Path(root))
    with reference.exclusively():
        if reference.missing([group(1)]):
            started.set()
            time.sleep(0.5)
            with reference.writing(group(1)) as writer:
                for chunk in logits(1):
                    writer.append(chunk)
    done.put((reference.usage.computed, reference.usage.reused))


def hammer(root: str, name: str, done: Any) -> None:
    """Fill, use and evict where four of the six references of two such runs have room."""
    wrong = 0
    for turn in range(30):
        seed = turn % 3
        reference = opened(Path(root), f"{name}{seed}", limit=4 * (2 * CHUNK + 500))
        fill(reference, seed)
        rows = reference.rows(group(seed), 1, 0, ROWS)
        wrong += not np.array_equal(rows, logits(seed)[1])
    done.put(wrong)


class TestTwoRuns:
    def test_the_second_waits_and_finds_what_the_first_computed(self, tmp_path: Path) -> None:
        started, done = SPAWN.Event(), SPAWN.Queue()
        runs = [
            SPAWN.Process(target=compute_slowly, args=(str(tmp_path), started, done))
            for _ in range(2)
        ]
        for run in runs:
            run.start()
        found = sorted(done.get(timeout=60) for _ in runs)
        for run in runs:
            run.join(60)
        assert found == [(0, 2), (2, 0)]

    def test_they_never_take_from_each_other_what_is_in_use(self, tmp_path: Path) -> None:
        done = SPAWN.Queue()
        runs = [SPAWN.Process(target=hammer, args=(str(tmp_path), name, done)) for name in "ab"]
        for run in runs:
            run.start()
        assert [done.get(timeout=60) for _ in runs] == [0, 0]
        for run in runs:
            run.join(60)
            assert run.exitcode == 0

    def test_a_killed_run_holds_nothing(self, tmp_path: Path) -> None:
        script = (
            "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
            "from unit_store import hold; hold(Path(sys.argv[1]))"
        )
        helper = tmp_path / "unit_store.py"
        helper.write_text(
            "import os, signal\nfrom pytest_kvquant.inputs.reference_store import ReferenceStore\n"
            "def hold(root):\n"
            f"    reference = ReferenceStore(root, {LIMIT}).open({{'model': 'm'}}, rows={ROWS},"
            f" vocabulary={VOCABULARY})\n"
            "    with reference.exclusively():\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        root = tmp_path / "store"
        killed = subprocess.run(
            [sys.executable, "-c", script, str(root), str(tmp_path)], check=False, timeout=60
        )
        assert killed.returncode == -9
        fill(opened(root), 1)
        fill(opened(root, "two", limit=2 * CHUNK + 1000), 1)
        assert len(folders(root)) == 1
