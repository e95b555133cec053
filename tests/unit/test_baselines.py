from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pytest_kvquant.baselines import file
from pytest_kvquant.baselines import quality as baselines
from pytest_kvquant.baselines.file import (
    Baseline,
    BaselineConditions,
    BaselineError,
    Chunk,
    Summary,
)
from pytest_kvquant.cli.main import main
from pytest_kvquant.results.library import CacheType, Device, Library

CONDITIONS = BaselineConditions(
    model="mini",
    model_fingerprint="aa",
    corpus="text",
    corpus_fingerprint="bb",
    ctx=512,
    scored=255,
    library="build",
    library_hash="cc",
    device="CPU",
    cpu="some processor",
    threads=2,
    batch=2048,
    ubatch=512,
    sequences=4,
    gpu_layers=-1,
    environment={},
    plugin="0",
)


def make(
    *,
    kl: float = 1.0,
    ln_ppl: float = 0.0,
    nll: float = 0.0,
    chunks: int = 8,
    pair: str = "q4_0/q4_0",
    logits: str = "00",
    floor: float = 1e-6,
    noise: float = 0.0,
    conditions: BaselineConditions = CONDITIONS,
) -> Baseline:
    """A baseline whose KL differs by a factor from that of the default one, chunk by chunk."""
    random = np.random.default_rng(7)
    usual, jitter = random.uniform(0.01, 0.02, 128), random.standard_normal(128)
    rows = [
        Chunk(
            tokens=f"{number:08x}",
            logits=logits,
            kl=0.0
            if pair == "f16/f16"
            else float(usual[number] * kl * (1 + noise * jitter[number])),
            ln_ppl=0.01 + ln_ppl,
            nll=5.0 + nll,
            top1=0.9,
        )
        for number in range(chunks)
    ]
    return Baseline(
        schema=file.SCHEMA,
        pair=pair,
        summary=Summary(kl_mean=0.015, ln_ppl=0.01, ppl=150.0, top1=0.9),
        floor=floor,
        conditions=conditions,
        chunks=tuple(rows),
    )


def verdict(before: Baseline, after: Baseline) -> str | None:
    found = baselines.judge(before, after)
    return found.verdict if found else None


def test_a_file_is_read_back_and_has_a_line_for_every_chunk() -> None:
    text = file.encode(make(chunks=3))
    assert file.decode(text, "it") == make(chunks=3)
    assert sum('"tokens"' in line for line in text.splitlines()) == 3
    assert text.endswith("\n")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_a_number_is_never_written(bad: float) -> None:
    with pytest.raises(BaselineError, match="not a baseline"):
        file.encode(make(ln_ppl=bad))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text[: len(text) // 2], "is not a baseline"),
        (lambda text: "<<<<<<< HEAD\n" + text, "is not a baseline"),
        (lambda text: text.replace('"kl":', '"kk":', 1), "kk"),
        (lambda text: text.replace('"floor": ', '"floor": "', 1).replace("1e-6,", '",'), "float"),
        (lambda text: text.replace("baseline/1", "baseline/9"), "schema"),
        (lambda text: text[: text.index('"chunks"')] + '"chunks": []}', "no chunks"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change, complaint: str) -> None:
    path = tmp_path / "q4_0-q4_0.json"
    path.write_text(change(file.encode(make())))
    with pytest.raises(BaselineError, match=complaint) as error:
        file.read(path)
    assert str(path) in str(error.value)


def test_no_file_is_no_baseline(tmp_path: Path) -> None:
    assert file.read(tmp_path / "absent.json") is None


def test_drift_counts_beyond_the_tolerance_both_ways() -> None:
    usual = make()
    assert verdict(usual, usual) == "equal"
    assert verdict(usual, make(kl=1.02)) == "changed"
    assert verdict(usual, make(kl=1 / 1.02)) == "changed"
    assert verdict(usual, make(kl=1.06)) == "worse"
    assert verdict(usual, make(kl=1 / 1.06)) == "better"
    assert verdict(usual, make(kl=1e-5)) == "inactive"


def test_chance_is_no_drift() -> None:
    assert verdict(make(), make(kl=1.06, noise=0.05)) == "changed"


def test_equal_figures_of_other_logits_are_a_change() -> None:
    assert verdict(make(), make(logits="01")) == "changed"


def test_f16_is_compared_by_its_own_perplexity() -> None:
    usual = make(pair="f16/f16")
    assert verdict(usual, usual) == "equal"
    assert verdict(usual, make(pair="f16/f16", nll=1e-5)) == "changed"
    assert verdict(usual, make(pair="f16/f16", nll=1e-3)) == "worse"


def test_only_chunks_of_the_same_tokens_are_compared() -> None:
    found = baselines.judge(make(chunks=4), make(chunks=32, kl=2))
    assert found is not None
    assert found.chunks == 4
    after = make()
    other = msgspec.structs.replace(after.chunks[0], tokens="ffffffff")
    assert (
        verdict(make(), msgspec.structs.replace(after, chunks=(other, *after.chunks[1:]))) is None
    )


@pytest.mark.parametrize("field", ["model_fingerprint", "corpus_fingerprint", "ctx", "scored"])
def test_figures_of_another_subject_are_not_compared(field: str) -> None:
    other = msgspec.structs.replace(CONDITIONS, **{field: 1 if field in ("ctx", "scored") else "x"})
    assert verdict(make(), make(conditions=other)) is None
    assert baselines.strangers(CONDITIONS, other) == [baselines.SUBJECT[field]]


@pytest.mark.parametrize("field", baselines.ROUNDING)
def test_what_moves_figures_by_rounding_is_named(field: str) -> None:
    changed = {str: "x", int: 1, dict: {"A": "1"}}[type(getattr(CONDITIONS, field))]
    other = msgspec.structs.replace(CONDITIONS, **{field: changed})
    assert baselines.differences(CONDITIONS, other) == (baselines.ROUNDING[field],)


def library(*devices: Device) -> Library:
    return Library(
        path="", bindings="", python="", llama_version=None, ggml_version=None, ggml_commit=None,
        system_info=None, files=(), hash="", devices=devices,
        types={"f16": CacheType(id=1, block=1, bytes=2, cache=True)},
    )  # fmt: skip


CPU = Device(name="CPU", description="Some CPU @ 3 GHz", gpu=False, free=0, total=0)
GPU = Device(name="Metal", description="Apple M5 Max", gpu=True, free=0, total=0)


@pytest.mark.parametrize(
    ("devices", "machine", "layers", "folder"),
    [
        ((CPU,), "x86_64", -1, "cpu-x86_64"),
        ((CPU,), "aarch64", -1, "cpu-arm64"),
        ((GPU, CPU), "arm64", -1, "apple-m5-max"),
        ((GPU, CPU), "arm64", 0, "cpu-arm64"),
    ],
)
def test_the_folder_of_a_machine(
    devices: tuple[Device, ...], machine: str, layers: int, folder: str
) -> None:
    assert baselines.hardware_class(library(*devices), machine, layers) == folder


def test_names_stay_inside_the_folder() -> None:
    assert baselines.slug("../../etc/Passwd") == "etc-passwd"
    assert "/" not in baselines.slug("a/b\\c\x00d")


WRITER = """
import itertools, sys
from pathlib import Path
from syrupy.data import Snapshot, SnapshotCollection
from pytest_kvquant.outcomes.baseline import BaselineExtension
place, *texts = map(Path, sys.argv[1:])
texts = [text.read_text() for text in texts]
print("ready", flush=True)
for text in itertools.cycle(texts):
    collection = SnapshotCollection(location=str(place))
    collection.add(Snapshot(name="test_baseline", data=text))
    BaselineExtension.write_snapshot_collection(snapshot_collection=collection)
"""


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    place, texts = tmp_path / "q4_0-q4_0.json", [tmp_path / "old", tmp_path / "new"]
    contents = {file.encode(make(chunks=128, kl=kl)) for kl in (1.0, 1.5)}
    for path, text in zip(texts, contents, strict=True):
        path.write_text(text)
    for delay in (0.0, 0.003, 0.011, 0.02):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, place, *texts], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
        assert not place.exists() or place.read_text() in contents
    assert place.read_text() in contents


def test_git_knows_a_point_for_every_commit_that_moved_a_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``kvquant history --git``: a pair that a commit left alone goes on at its level."""

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e@x", *words],
            cwd=tmp_path, capture_output=True, check=True,
        )  # fmt: skip

    def accept(pair: str, kl_mean: float) -> None:
        summary = Summary(kl_mean=kl_mean, ln_ppl=0.01, ppl=150.0, top1=0.9)
        one = msgspec.structs.replace(make(pair=pair, chunks=2), summary=summary)
        (tmp_path / "baselines" / f"{pair.replace('/', '-')}.json").write_text(file.encode(one))

    (tmp_path / "baselines").mkdir()
    git("init", "-q")
    accept("q4_0/q4_0", 0.015)
    accept("q8_0/q8_0", 0.001)
    git("add", ".")
    git("commit", "-qm", "one")
    accept("q4_0/q4_0", 0.03)
    git("commit", "-qam", "two")
    (tmp_path / "README").write_text("no baseline")
    git("add", ".")
    git("commit", "-qm", "three")
    assert main(["history", "--git", str(tmp_path / "baselines")]) == 0
    lines = capsys.readouterr().out.splitlines()
    moved = next(line for line in lines if "q4_0/q4_0" in line)
    still = next(line for line in lines if "q8_0/q8_0" in line)
    assert [word in moved for word in ("▁█", "0.0150", "0.0300", "+100.0%")] == [True] * 4
    assert "▁▁" in still
    assert any("2 runs" in line for line in lines)
    other = tmp_path / "none"
    other.mkdir()
    assert main(["history", "--git", str(other)]) == 2
    assert "git knows no baseline under" in capsys.readouterr().err


def test_the_version_names_plugin_bindings_and_library(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == ["pytest-kvquant", "llama-cpp-python", "library"]
