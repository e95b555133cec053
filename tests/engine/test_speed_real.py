"""The speed protocol on the real engine, with planted time: every verdict, and what it cost."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from support import run
from support.tinygguf import Tiny, write

from pytest_kvquant.config.overrides import Expect, FloorOverride
from pytest_kvquant.config.speed_tests import NAMES
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.timed import TimedWorker
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.report.speed_table import speed_notes, speed_table
from pytest_kvquant.results.file import encode
from pytest_kvquant.results.speed import SpeedCell
from pytest_kvquant.session.run import Session

SPEEDS = Path(__file__).parents[1] / "support" / "speeds.py"
PAIR = Pair("q8_0", "q8_0")
GPU = FloorOverride(pp=0.6, tg=0.7, slowdown=0.2, cliff=0.5)
"""Floors of a GPU: those of a CPU let healthy pairs lose most of their speed."""
SMALL = Tiny(n_layer=1, n_embd=32, n_head=1, n_head_kv=1, head_dim=32, n_ff=32, n_vocab=300)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.gguf"
    write(path, SMALL)
    return path


def session(tmp_path: Path, model: Path, speeds: dict[str, Any], **settings: Any) -> Session:
    environment = {HOOK: str(SPEEDS), "KVQUANT_SPEEDS": json.dumps(speeds)}
    defaults: dict[str, Any] = {
        **dict.fromkeys(NAMES, 0), "pp": 16, "tg": 4,
        "depths": (0, 512, 1024), "sample": 0.01, "threads": 1, "floors": {"*/*": GPU},
    }  # fmt: skip
    always = {"model": model, "pairs": (str(PAIR),), "environment": environment}
    return run.start(tmp_path, **{**defaults, **always, **settings})


def timed(tmp_path: Path, model: Path, planted: dict[str, Any], **settings: Any) -> SpeedCell:
    return session(tmp_path, model, {str(PAIR): planted}, **settings).speed.measure(PAIR)


def stored(tmp_path: Path, model: Path) -> Path:
    """The result of a run at full speed on this machine."""
    path = tmp_path / "stored.json"
    full = session(tmp_path, model, {}, depths=(0,))
    full.speed.measure(PAIR)
    path.write_bytes(encode(full.result()))
    return path


def verdicts(cell: SpeedCell) -> dict[str, str]:
    return {test.title: test.verdict for test in cell.tests}


SLOW_PATH = "no FlashAttention vector kernel compiled for K/V types q8_0-q8_0, converting (slow)."


def test_a_slow_path_that_the_library_admits_is_quoted(tmp_path: Path, small: Path) -> None:
    hook = tmp_path / "hook.py"
    hook.write_text(f"import sys\nprint('load: done', {SLOW_PATH!r}, sep='\\n', file=sys.stderr)\n")
    environment = {HOOK: str(hook)}
    quoted = session(tmp_path, small, {}, depths=(0,), environment=environment).speed.measure(PAIR)
    assert quoted.remarks == (SLOW_PATH,)
    assert f"{PAIR}: the library says: {SLOW_PATH}" in speed_notes([quoted])


def test_a_healthy_pair_passes_in_six_rounds_and_one_climb(tmp_path: Path, small: Path) -> None:
    cell = timed(tmp_path, small, {"pp": 1.25, "tg": 1.1})
    assert cell.verdict == "pass"
    assert set(verdicts(cell)) == {
        "pp16", "tg4", "pp16 @ d512", "tg4 @ d512", "pp16 @ d1024", "tg4 @ d1024",
    }  # fmt: skip
    for test in cell.tests:
        assert test.ratio == pytest.approx(1 / 1.25 if test.kind == "pp" else 1 / 1.1)
        assert (len(test.ratios), len(test.samples_ns), len(test.reference_ns)) == (6, 12, 12)
        assert test.avg_ts == pytest.approx(1000 * test.ratio)
        assert (test.type_k, test.type_v) == PAIR
    assert cell.prefilled == {str(PAIR): (1024,), str(REFERENCE): (1024,)}
    assert cell.rollback == "remove"


def test_the_table_shows_both_speeds_of_the_same_rounds(tmp_path: Path, small: Path) -> None:
    speeds = {"all": 2, str(PAIR): {"pp": 1.25}}
    cell = session(tmp_path, small, speeds, depths=(0, 512)).speed.measure(PAIR)
    assert [round(test.reference_ts) for test in cell.tests] == [500] * 4
    printed = io.StringIO()
    Console(file=printed, width=80).print(speed_table([cell]))
    rows = [line.split("│")[1:-1] for line in printed.getvalue().splitlines() if "│" in line]
    assert [[entry.strip() for entry in row] for row in rows] == [
        ["q8_0/q8_0", "0.80 (400/500)", "1.00 (500/500)"],
        ["q8_0/q8_0 @ d512", "0.80 (400/500)", "1.00 (500/500)"],
    ]


def test_each_speed_says_how_near_it_comes_to_what_the_machine_permits(
    tmp_path: Path, small: Path
) -> None:
    cell = timed(tmp_path, small, {"tg": 1.6}, depths=(0, 512))
    roofs: dict[str, Any] = {test.title: test.roof for test in cell.tests}
    assert None not in roofs.values()
    decode, deeper = roofs["tg4"], roofs["tg4 @ d512"]
    assert decode.by == "bandwidth"
    assert decode.ts * decode.amount == pytest.approx(decode.rate)
    # the planted clock: 1,000 tok/s of f16, 625 of the pair, whose cache is smaller
    assert decode.share * decode.ts == pytest.approx(625)
    assert decode.share < decode.reference_share / 1.6
    assert deeper.amount > decode.amount


def test_a_device_is_measured_by_kernels_of_the_build(small: Path) -> None:
    """Here the device is the CPU, asked as any other is."""
    engine = Engine(environment=scrub(dict(os.environ), {}), timeout=60)
    with TimedWorker(engine) as worker:
        worker.library(engine.directory)
        found: Any = worker.rates("CPU", 1 << 25, 1)
        assert found.read > 1e7
        assert found.multiply > 1e7
        assert worker.rates("CUDA7", 1 << 25, 1) is None  # no such device: no roof, no failure


OTHERS = (Pair("q4_0", "q4_0"), Pair("f16", "q8_0"))


def together(tmp_path: Path, model: Path, planted: dict[str, Any], **settings: Any) -> Session:
    pairs = (PAIR, *OTHERS)
    run = session(tmp_path, model, planted, pairs=tuple(map(str, pairs)), **settings)
    run.speed.together = pairs
    run.speed.measure(PAIR)
    return run


def test_pairs_share_one_process_and_the_samples_of_one_f16(tmp_path: Path, small: Path) -> None:
    planted = {str(PAIR): {"pp": 1.25}, str(OTHERS[0]): {"tg": 1.1}}
    run = together(tmp_path, small, planted)
    cells = [run.speed.measure(pair) for pair in (PAIR, *OTHERS)]
    assert [cell.verdict for cell in cells] == ["pass"] * 3
    assert [sorted(cell.beside) for cell in cells] == [
        sorted(str(other) for other in (PAIR, *OTHERS) if other != own) for own in (PAIR, *OTHERS)
    ]
    for number, kind, ratio in ((0, "pp", 1 / 1.25), (1, "tg", 1 / 1.1), (2, "pp", 1.0)):
        ratios = [test.ratio for test in cells[number].tests if test.kind == kind]
        assert ratios == pytest.approx([ratio] * 3)
    by_test = zip(*(cell.tests for cell in cells), strict=True)
    assert all(len({test.reference_ns for test in same}) == 1 for same in by_test)
    assert {cell.prefilled[str(REFERENCE)] for cell in cells} == {(1024,)}


def test_a_slow_pair_of_several_is_confirmed_by_itself_and_a_cliff_goes_no_deeper(
    tmp_path: Path, small: Path
) -> None:
    planted = {str(PAIR): {"tg": 1.8}, str(OTHERS[0]): {"pp": 30}}
    run = together(tmp_path, small, planted, depths=(0, 512))
    slow, cliff, healthy = (run.speed.measure(pair) for pair in (PAIR, *OTHERS))
    assert [cell.verdict for cell in (slow, cliff, healthy)] == ["fail", "cliff", "pass"]
    assert [test.confirmed for test in slow.tests if test.kind == "tg"] == [True, True]
    assert slow.prefilled[str(PAIR)] == (512, 512), "in a fresh process, with f16 alone"
    assert healthy.prefilled == {str(OTHERS[1]): (512,), str(REFERENCE): (512,)}
    assert cliff.prefilled[str(OTHERS[0])] == (0,)
    assert len(cliff.tests[0].ratios) == 3
    assert len(healthy.tests[0].ratios) == 6


def test_a_pair_that_dies_among_others_is_found_and_the_others_are_timed_beside_each_other(
    tmp_path: Path, small: Path
) -> None:
    run = together(tmp_path, small, {str(OTHERS[0]): {"dies_at": 512}}, depths=(0, 512))
    cells = [run.speed.measure(pair) for pair in (PAIR, *OTHERS)]
    assert [cell.verdict for cell in cells] == ["pass", "crashed", "pass"]
    assert [cell.beside for cell in cells] == [(str(OTHERS[1]),), (), (str(PAIR),)]
    of_f16 = [[test.reference_ns for test in cells[at].tests] for at in (0, 2)]
    assert of_f16[0] == of_f16[1], "one f16 for both"
    assert {cells[at].prefilled[str(REFERENCE)] for at in (0, 2)} == {(512,)}


def test_a_pair_that_leaks_into_others_does_not_part_the_rest(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose cache holds other types beside others than by itself is timed by itself."""
    open_streams = TimedWorker.open_streams

    def leaking(self: TimedWorker, pairs: Any, **fields: Any) -> Any:
        opened = open_streams(self, pairs, **fields)
        held = [
            [("q8_0", "f16")] if pair == OTHERS[0] and len(pairs) > 2 else types
            for pair, types in zip(pairs, opened.types, strict=True)
        ]
        return dataclasses.replace(opened, types=held)

    monkeypatch.setattr(TimedWorker, "open_streams", leaking)
    run = together(tmp_path, small, {}, depths=(0,))
    cells = [run.speed.measure(pair) for pair in (PAIR, *OTHERS)]
    assert [cell.verdict for cell in cells] == ["pass"] * 3
    assert [cell.beside for cell in cells] == [(str(OTHERS[1]),), (), (str(PAIR),)]


def test_where_it_is_not_known_which_pair_died_each_is_timed_by_itself(
    tmp_path: Path, small: Path
) -> None:
    run = together(tmp_path, small, {str(OTHERS[0]): {"dies_after": 12}}, depths=(0,))
    cells = [run.speed.measure(pair) for pair in (PAIR, *OTHERS)]
    assert [cell.verdict for cell in cells] == ["pass", "crashed", "pass"]
    assert {cell.beside for cell in cells} == {()}


def test_pairs_that_do_not_fit_beside_each_other_are_timed_in_smaller_groups(
    tmp_path: Path, small: Path
) -> None:
    room = limit(512 + 16, each=BYTES + 68 + 36)  # f16, q8_0/q8_0, q4_0/q4_0
    run = together(tmp_path, small, {}, depths=(0, 512), memory_limit=room)
    cells = [run.speed.measure(pair) for pair in (PAIR, *OTHERS)]
    assert [cell.verdict for cell in cells] == ["pass"] * 3
    assert [cell.beside for cell in cells] == [(str(OTHERS[0]),), (str(PAIR),), ()]


def test_a_slow_pair_fails_and_is_confirmed_in_a_fresh_process(tmp_path: Path, small: Path) -> None:
    cell = timed(tmp_path, small, {"tg": 1.8}, depths=(0, 512))
    assert cell.verdict == "fail"
    slow = [test for test in cell.tests if test.kind == "tg"]
    assert [(test.verdict, test.confirmed) for test in slow] == [("fail", True)] * 2
    assert "0.56 of the speed of f16/f16 (floor 0.7)" in slow[0].text
    assert cell.prefilled[str(PAIR)] == (512, 512)
    assert {test.verdict for test in cell.tests if test.kind == "pp"} == {"pass"}


def test_what_a_fresh_process_does_not_find_is_inconclusive(tmp_path: Path, small: Path) -> None:
    once = str(tmp_path / "marker")
    cell = timed(tmp_path, small, {"tg": 1.8, "once": once}, depths=(0,))
    assert verdicts(cell) == {"pp16": "pass", "tg4": "inconclusive"}
    assert cell.tests[1].confirmed is False
    assert "a fresh process did not find the same" in cell.tests[1].text


def test_a_cliff_is_named_and_ends_the_climb(tmp_path: Path, small: Path) -> None:
    cell = timed(tmp_path, small, {"pp": 30})
    assert cell.verdict == "cliff"
    assert verdicts(cell) == {"pp16": "cliff", "tg4": "pass"}
    assert len(cell.tests[0].ratios) == 3
    assert "0.033 of the speed of f16/f16" in cell.tests[0].text
    assert cell.stopped == "a cliff at depth 0 ended the sweep; not visited: 512, 1,024"
    assert cell.prefilled == {str(PAIR): (0,), str(REFERENCE): (0,)}


def test_prefill_is_timed_on_where_only_decode_falls_off_a_cliff(
    tmp_path: Path, small: Path
) -> None:
    cell = timed(tmp_path, small, {"tg": 30})
    assert verdicts(cell) == {
        "pp16": "pass", "tg4": "cliff", "pp16 @ d512": "pass", "pp16 @ d1024": "pass",
    }  # fmt: skip
    assert cell.stopped == "tg fell off a cliff at depth 0 and was not timed at: 512, 1,024"


def test_decode_is_timed_on_where_the_cliff_of_prefill_is_declared(
    tmp_path: Path, small: Path
) -> None:
    declared = {"q8_0/* @ d0": Expect(cliff="pp")}
    cell = timed(tmp_path, small, {"pp": 30, "tg": 1.1}, expect=declared)
    assert verdicts(cell) == {
        "pp16": "cliff", "tg4": "pass", "tg4 @ d512": "pass", "tg4 @ d1024": "pass",
    }  # fmt: skip
    assert cell.verdict == "pass"


def test_a_fall_between_two_depths_is_a_cliff(tmp_path: Path, small: Path) -> None:
    cell = timed(
        tmp_path,
        small,
        {"slows": 0.6},
        floors={"*/*": msgspec.structs.replace(GPU, pp=0.1, tg=0.1)},
    )
    assert [test.verdict for test in cell.tests] == [*["pass"] * 2, *["cliff"] * 2, *["pass"] * 2]
    assert "0.77 of the speed of f16/f16, after 1.00 at the depth before" in cell.tests[2].text
    assert cell.tests[2].confirmed
    assert cell.stopped == "", "it is not off the fast path: deeper depths are worth their time"


@pytest.mark.parametrize(("kind", "usual"), [("pp", 4.0), ("tg", 1.1)])
def test_a_kernel_that_is_slower_beyond_a_depth_is_a_cliff(
    tmp_path: Path, small: Path, kind: str, usual: float
) -> None:
    """Twice as slow beyond 2,048 tokens, whatever the pair's healthy speed is on this hardware."""
    least = FloorOverride(pp=0.01, tg=0.01, slowdown=0.95, cliff=0.01, start=0.01)
    planted = {"pp": usual, "tg": usual}
    options: dict[str, Any] = {"depths": (0, 3584), "floors": {"*/*": least}}
    assert timed(tmp_path, small, planted, **options).verdict == "pass"
    slow = {**planted, "beyond": (2048, 2), "only": kind}
    cell = timed(tmp_path, small, slow, **options)
    count = {"pp": 16, "tg": 4}[kind]
    found = {test.title: test for test in cell.tests}
    assert {title for title, test in found.items() if test.verdict != "pass"} == {
        f"{kind}{count} @ d3584"
    }
    deep = found[f"{kind}{count} @ d3584"]
    assert (deep.verdict, deep.confirmed) == ("cliff", True)
    assert "another kernel works there" in deep.text
    assert "from about depth 2,048" in deep.text


@pytest.mark.parametrize("kind", ["pp", "tg"])
def test_a_cpu_that_is_twice_as_slow_from_the_start_is_red_without_a_baseline(
    tmp_path: Path, small: Path, kind: str
) -> None:
    """A healthy pair there may take many times as long to read its cache, but not for the rest."""
    options: dict[str, Any] = {"depths": (0, 2048), "floors": {}}
    healthy = {"pp": 1.1, "tg": 1.1, "slows": 1}
    assert timed(tmp_path, small, healthy, **options).verdict == "pass"
    cell = timed(tmp_path, small, {**healthy, kind: 2.2}, **options)
    name = {"pp": "pp16", "tg": "tg4"}[kind]
    assert [test.title for test in cell.tests if test.verdict != "pass"] == [name]
    found = next(test for test in cell.tests if test.title == name)
    assert (found.verdict, found.confirmed) == ("fail", True)
    why = {"pp": "with an empty cache it runs at 0.4", "tg": "0.45 of the speed of f16/f16"}
    assert why[kind] in found.text


def test_what_is_timed_beside_other_programs_decides_nothing(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ["other programs took 1.0 cores of the CPU meanwhile"] * 2
    monkeypatch.setattr(
        "pytest_kvquant.machine.company.Company.told", lambda _self: told.pop() if told else ""
    )
    monkeypatch.setattr("pytest_kvquant.speed.series.COOL_DOWN", (0, 0))
    cell = timed(tmp_path, small, {"tg": 1.8}, depths=(0,), disturbed="repeat")
    assert verdicts(cell) == {"pp16": "inconclusive", "tg4": "fail"}
    assert "1.0 cores of the CPU meanwhile, so that nothing is decided" in cell.tests[0].text
    told += ["someone is there"]
    again = timed(tmp_path, small, {"tg": 1.1}, depths=(0,), disturbed="repeat")
    assert again.verdict == "pass", "disturbed once, and quiet when it was taken again"


BYTES = 128
"""Of f16/f16 per token: 2 · 32 · 2; q8_0/q8_0 has 68."""


def limit(tokens: int, *, each: int) -> float:
    """GB in which caches of so many bytes a token hold so many tokens, and a twentieth more."""
    return each * tokens * 1.05 / 1e9


def test_two_caches_that_do_not_fit_are_bracketed(tmp_path: Path, small: Path) -> None:
    room = limit(512 + 16, each=BYTES)
    cell = timed(tmp_path, small, {"pp": 1.25, "tg": 1.1}, depths=(0, 256, 512), memory_limit=room)
    assert (cell.verdict, cell.method) == ("pass", "bracketed")
    assert "from depth 512 on f16 before and after, not in turn" in cell.method_reason
    assert "two caches of 528 tokens need" in cell.method_reason
    assert {round(test.ratio or 0, 6) for test in cell.tests} == {0.8, round(1 / 1.1, 6)}
    assert cell.prefilled == {str(PAIR): (256, 512), str(REFERENCE): (256, 512, 512)}


def test_a_bracketed_cliff_ends_the_climb(tmp_path: Path, small: Path) -> None:
    room = limit(1024 + 16, each=BYTES)
    cell = timed(tmp_path, small, {"pp": 2.5, "tg": 1.1}, depths=(768, 1024), memory_limit=room)
    assert verdicts(cell) == {"pp16 @ d768": "cliff", "tg4 @ d768": "pass"}
    assert cell.stopped == "a cliff at depth 768 ended the sweep; not visited: 1,024"
    assert cell.prefilled == {str(PAIR): (768,), str(REFERENCE): (1024, 768)}


def test_a_bracketed_fail_is_confirmed_in_fresh_processes(tmp_path: Path, small: Path) -> None:
    options: dict[str, Any] = {"depths": (512,), "memory_limit": limit(528, each=BYTES)}
    cell = timed(tmp_path, small, {"tg": 1.8}, **options)
    assert [(test.verdict, test.confirmed) for test in cell.tests] == [
        ("pass", None), ("fail", True),
    ]  # fmt: skip
    assert cell.prefilled == {str(PAIR): (512, 512), str(REFERENCE): (512,) * 4}
    once = timed(tmp_path, small, {"tg": 1.8, "once": str(tmp_path / "marker")}, **options)
    assert [(test.verdict, test.confirmed) for test in once.tests] == [
        ("pass", None), ("inconclusive", False),
    ]  # fmt: skip


def test_no_fall_from_a_ratio_that_the_machine_made(tmp_path: Path, small: Path) -> None:
    slow_once = {"once": str(tmp_path / "marker"), "slow_at": {"768": 3}}
    cell = session(
        tmp_path, small, {str(REFERENCE): slow_once}, depths=(768, 1024), tg=0,
        memory_limit=limit(1024 + 16, each=BYTES),
    ).speed.measure(PAIR)  # fmt: skip
    assert verdicts(cell) == {"pp16 @ d768": "inconclusive", "pp16 @ d1024": "pass"}
    assert "f16/f16 before and after differ too much to tell" in cell.tests[0].text


def test_where_f16_does_not_fit_the_cell_is_timed_without_it(tmp_path: Path, small: Path) -> None:
    room = limit(512 + 16, each=BYTES)
    cell = timed(tmp_path, small, {"tg": 1.25}, depths=(0, 768, 4096), memory_limit=room)
    assert verdicts(cell) == {
        "pp16": "pass", "tg4": "pass", "pp16 @ d768": "inconclusive", "tg4 @ d768": "inconclusive",
    }  # fmt: skip
    alone = cell.tests[3]
    assert (alone.ratio, alone.ratios, alone.reference_ns) == (None, (), ())
    assert alone.median_ts == pytest.approx(800)
    assert "tg4 @ d768 runs at 800 tok/s, without a ratio: a cache of 784 tokens" in alone.text
    assert (cell.verdict, cell.method) == ("inconclusive", "alone")
    assert cell.stopped.startswith("not visited: 4,096: A cache of 4,112 tokens needs")


def test_a_cache_that_does_not_fit_alone_is_out_of_memory(tmp_path: Path, small: Path) -> None:
    cell = timed(tmp_path, small, {}, memory_limit=1e-6)
    assert (cell.verdict, cell.tests) == ("out-of-memory", ())
    assert "A cache of 16 tokens needs" in str(cell.message)


@pytest.mark.parametrize("factor", [1.0, 1.8], ids=["healthy", "slow"])
def test_what_was_found_before_a_worker_died_is_kept(
    tmp_path: Path, small: Path, factor: float
) -> None:
    cell = timed(tmp_path, small, {"tg": factor, "dies_at": 512})
    assert cell.verdict == "crashed"
    assert str(cell.message).endswith("That was while timing pp16 @ d512.")
    expected = ("pass", None) if factor == 1 else ("fail", True)
    assert [(test.title, test.verdict, test.confirmed) for test in cell.tests] == [
        ("pp16", "pass", None), ("tg4", *expected),
    ]  # fmt: skip


def test_a_pair_that_the_library_refuses_is_unsupported(tmp_path: Path, small: Path) -> None:
    del small
    narrow = tmp_path / "narrow.gguf"
    write(narrow, Tiny(n_layer=1, n_embd=80, n_head=1, n_head_kv=1, head_dim=80, n_vocab=300))
    cell = timed(tmp_path, narrow, {})
    assert cell.verdict == "unsupported"
    assert "does not divide" in str(cell.message)


@pytest.mark.parametrize(
    "model",
    [
        Tiny(arch="lfm2", n_vocab=300, n_head=1, n_head_kv=1, head_dim=64, n_embd=64, n_ff=32),
        Tiny(arch="gemma3", n_vocab=300, n_layer=3, window_period=3, head_dim=32, n_embd=32),
    ],
    ids=["hybrid", "window"],
)
def test_memories_that_refuse_partial_removal_are_restored(tmp_path: Path, model: Tiny) -> None:
    write(tmp_path / "model.gguf", model)
    cell = timed(tmp_path, tmp_path / "model.gguf", {}, depths=(0, 256, 512))
    assert (cell.verdict, cell.rollback) == ("pass", "restore")
    assert [test.n_depth for test in cell.tests] == [0, 0, 256, 256, 512, 512]
    assert cell.prefilled == {str(PAIR): (512,), str(REFERENCE): (512,)}


def test_a_stored_speed_is_an_absolute_floor(tmp_path: Path, small: Path) -> None:
    path = stored(tmp_path, small)
    cell = timed(tmp_path, small, {"tg": 1.2}, depths=(0,), speed_baseline=path)
    assert verdicts(cell) == {"pp16": "pass", "tg4": "fail"}
    assert cell.tests[1].confirmed
    assert cell.tests[1].stored_ts == pytest.approx(1000)
    assert "833.3 tok/s at best, under 0.9 of the 1000.0 tok/s stored" in cell.tests[1].text
    assert all(test.roof and test.roof.stored_rate for test in cell.tests)


def test_a_ratio_that_was_stored_is_kept(tmp_path: Path, small: Path) -> None:
    """Twice as slow, on hardware whose floors would let it pass, and while the machine is slow."""
    path = stored(tmp_path, small)
    least = FloorOverride(pp=0.01, tg=0.01, slowdown=0.95, cliff=0.01)
    slow = session(
        tmp_path, small, {"all": 1.5, str(PAIR): {"tg": 2}},
        depths=(0,), speed_baseline=path, floors={"*/*": least},
    )  # fmt: skip
    cell = slow.speed.measure(PAIR)
    assert verdicts(cell)["tg4"] == "fail"
    assert "under 0.75 of the 1.00 stored for this hardware" in cell.tests[1].text


def test_where_f16_is_slow_too_the_machine_is(tmp_path: Path, small: Path) -> None:
    path = stored(tmp_path, small)
    slow = session(tmp_path, small, {"all": 1.3}, depths=(0,), speed_baseline=path)
    cell = slow.speed.measure(PAIR)
    assert verdicts(cell) == {"pp16": "inconclusive", "tg4": "inconclusive"}
    assert "inconclusive" in cell.verdict
    assert "(machine): f16/f16 reaches 769.2 of its stored 1000.0 tok/s" in cell.tests[0].text


def test_a_known_cliff_is_declared_at_all_depths_or_at_one(tmp_path: Path, small: Path) -> None:
    speeds = session(
        tmp_path, small, {},
        expect={"q8_0/* @ d512": Expect(cliff="pp"), "*/q4_0": Expect(cliff="both")},
    ).speed  # fmt: skip
    assert speeds.cliff_declared(PAIR, "pp", 512)
    assert not speeds.cliff_declared(PAIR, "pp", 0)
    assert not speeds.cliff_declared(PAIR, "tg", 512)
    assert speeds.cliff_declared(Pair("f16", "q4_0"), "tg", 0)


def test_a_stall_at_the_start_does_not_make_samples_short(tmp_path: Path, small: Path) -> None:
    cell = timed(tmp_path, small, {"pp": 1, "stalls": 2}, depths=(0,), pp=16, tg=0, sample=0.1)
    (test,) = cell.tests
    assert test.repeats == (7, 7), "16 ms a test, samples of 100 ms"


def test_what_slows_the_machine_for_less_than_a_sample_slows_both_sides(
    tmp_path: Path, small: Path
) -> None:
    speeds = {str(PAIR): {"pp": 1.25}, "busy": 29}
    one = session(tmp_path, small, speeds, depths=(0,), pp=16, tg=0, sample=1.0)
    (test,) = one.speed.measure(PAIR).tests
    assert min(test.ratios) == pytest.approx(0.8, rel=0.1)
    assert max(test.ratios) == pytest.approx(0.8, rel=0.1)


def test_a_slower_side_repeats_as_often_unless_that_takes_too_long(
    tmp_path: Path, small: Path
) -> None:
    def repeats(factor: float) -> tuple[int, int]:
        (test,) = timed(
            tmp_path / str(factor), small, {"pp": factor}, depths=(0,), pp=16, tg=0, sample=0.4
        ).tests
        return test.repeats

    assert repeats(1.6) == (25, 25)
    assert repeats(30) == (4, 25), "four times the wanted length at most"


@pytest.mark.parametrize(
    ("sample", "parts"), [(0.001, 8), (0.003, 4), (0.007, 2), (0.009, 1), (0.03, 1)]
)
def test_a_decode_test_much_longer_than_a_sample_is_taken_in_parts(
    tmp_path: Path, small: Path, sample: float, parts: int
) -> None:
    one = session(tmp_path, small, {str(PAIR): {"tg": 1.25}}, pp=0, tg=16, sample=sample)
    tests = one.speed.measure(PAIR).tests
    assert [test.n_depth for test in tests] == [0, 512, 1024]
    for test in tests:
        assert test.parts == parts, "a part takes as long as a sample has to"
        assert test.ratio == pytest.approx(0.8, rel=0.05)
        assert 1e-6 * test.avg_ns == pytest.approx(20, rel=0.05), "counted up to the whole test"


def test_a_prefill_test_is_never_cut_for_its_batches_would_be_others(
    tmp_path: Path, small: Path
) -> None:
    (test,) = timed(tmp_path, small, {}, depths=(0,), pp=16, tg=0, sample=0.001).tests
    assert test.parts == 1


@pytest.mark.parametrize("sample", [0.001, 0.009])
def test_a_memory_that_is_restored_goes_back_after_whole_tests(
    tmp_path: Path, sample: float
) -> None:
    window = Tiny(arch="gemma3", n_vocab=300, n_layer=3, window_period=3, head_dim=32, n_embd=32)
    write(tmp_path / "model.gguf", window)
    settings: dict[str, Any] = {"depths": (0, 1500), "pp": 0, "tg": 16, "sample": sample}
    cell = timed(tmp_path, tmp_path / "model.gguf", {}, **settings)
    assert (cell.verdict, cell.rollback) == ("pass", "restore")
    assert [test.parts for test in cell.tests] == [2 if sample < 0.008 else 1] * 2
