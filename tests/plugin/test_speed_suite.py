"""The speed suite inside pytest: outcomes, pytest-benchmark's files, and never a silent pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tinygguf import Tiny, write

from pytest_kvquant.config.speed_tests import NAMES
from pytest_kvquant.machine.environment import WORKER_HOOK
from pytest_kvquant.report import view
from pytest_kvquant.results.file import read
from pytest_kvquant.results.result import Unmeasured
from pytest_kvquant.session.merge import merge

SPEEDS = Path(__file__).parents[1] / "support" / "speeds.py"
SMALL = Tiny(n_layer=1, n_embd=32, n_head=1, n_head_kv=1, head_dim=32, n_ff=32, n_vocab=300)
TESTS = "prefill_speed or decode_speed"
SHORT = {"pp": 16, "tg": 4}
ONLY_PP_AND_TG = [f"--kv-{name}={SHORT.get(name, 0)}" for name in NAMES]
FLOORS = """
[floors]
"*/*" = { pp = 0.6, tg = 0.7, slowdown = 0.2, cliff = 0.5 }
"""


class Suite:
    """Runs the packaged speed tests in a process of their own, with planted time."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester, self._monkeypatch = pytester, monkeypatch
        write(pytester.path / "small.gguf", SMALL)
        for name in ("CI", "PYTEST_ADDOPTS"):
            monkeypatch.delenv(name, raising=False)

    def run(
        self,
        *words: str,
        planted: dict[str, Any] | None = None,
        config: str = "",
        depths: str = "--kv-depths=0,64",
    ) -> pytest.RunResult:
        self._monkeypatch.setenv("KVQUANT_SPEEDS", json.dumps({"q8_0/q8_0": planted or {}}))
        own = "" if "[floors]" in config else FLOORS
        hooked = f"[environment]\n{WORKER_HOOK} = '{SPEEDS}'\n"
        self.pytester.makefile(".toml", kvquant=f"{config}\n{own}{hooked}")
        return self.pytester.runpytest_subprocess(
            "--kv-matrix", "--kv-model=small.gguf", "--kv-pairs=q8_0/q8_0", "--kv-ctx=64",
            "--kv-chunks=2", *depths.split(), *ONLY_PP_AND_TG, "--kv-sample=0.01",
            "--kv-threads=1", "--kv-disturbed=ignore", "-k", TESTS, "-rsxf", *words,
        )  # fmt: skip


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def test_samples_reach_pytest_benchmark(suite: Suite) -> None:
    suite.run("--benchmark-json=b.json", "--kv-json=r.json", planted={"pp": 1.25}).assert_outcomes(
        passed=8
    )
    saved = json.loads((suite.pytester.path / "b.json").read_text())["benchmarks"]
    result = json.loads((suite.pytester.path / "r.json").read_text())
    named = {one["name"]: one for one in saved}
    one = named["test_prefill_speed[q8_0/q8_0-d64]"]
    (cell,) = [cell for cell in result["speed"] if cell["pair"] == "q8_0/q8_0"]
    (same,) = [test for test in cell["tests"] if (test["n_prompt"], test["n_depth"]) == (16, 64)]
    assert one["stats"]["data"] == pytest.approx([ns / 1e9 for ns in same["samples_ns"]])
    assert one["stats"]["median"] == pytest.approx(16 * 1.25e-3)
    assert one["group"] == "pp16 @ d64"
    assert one["extra_info"] == {
        "tok_s": pytest.approx(800), "depth": 64, "ratio": pytest.approx(0.8), "floor": 0.6,
        "verdict": "pass", "pair": "q8_0/q8_0", "test": "pp16 @ d64",
    }  # fmt: skip
    assert result["hardware"]["chip"]
    assert same["type_k"] == "q8_0"
    assert len(same["samples_ts"]) == 12


def test_a_pytest_benchmark_that_was_named_counts(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    suite.run("-p", "pytest_kvquant.plugin", "-p", "pytest_benchmark.plugin").assert_outcomes(
        passed=8
    )


def test_a_slow_pair_and_a_cliff_fail_in_words(suite: Suite) -> None:
    ran = suite.run(planted={"pp": 30, "tg": 1.8})
    ran.assert_outcomes(passed=4, failed=2, skipped=2)
    ran.stdout.fnmatch_lines([
        "*q8_0/q8_0: pp16 runs at 0.033 of the speed of f16/f16, under half of it in 3 rounds*",
        "*q8_0/q8_0: tg4 runs at 0.56 of the speed of f16/f16 (floor 0.7)*",
        "*obtained*tok/s, ratio 0.56*",
        "*a fresh process found the same*",
        "*again     pytest --kv-matrix*--kv-pairs q8_0/q8_0*",
        "*nothing was measured: a cliff at depth 0 ended the sweep; not visited: 64*",
    ])  # fmt: skip


def test_a_declared_cliff_is_expected_until_it_is_gone(suite: Suite) -> None:
    declared = '[expect."q8_0/q8_0"]\ncliff = "pp"\n'
    ran = suite.run("--kv-json=r.json", planted={"pp": 30}, config=declared)
    ran.assert_outcomes(passed=6, xfailed=1, skipped=1)
    result = json.loads((suite.pytester.path / "r.json").read_text())
    cell = next(cell for cell in result["speed"] if cell["pair"] == "q8_0/q8_0")
    assert cell["verdict"] == "pass"
    assert [(test["verdict"], test["declared"]) for test in cell["tests"]] == [
        ("cliff", True), ("pass", False), ("pass", False),
    ]  # fmt: skip
    fixed = suite.run("--kv-json=r.json", "--kv-summary=s.md", config=declared)
    fixed.assert_outcomes(passed=7, failed=1)
    gone = "[expect] declares a pp cliff, but there is none at any depth (pp16 @ d64 runs at*"
    fixed.stdout.fnmatch_lines([f"*{gone.replace('[expect]', '*')}remove the entry*"])
    after = read(suite.pytester.path / "r.json")
    assert {one.pair: (one.verdict, one.gone) for one in after.speed} == {
        "f16/f16": ("pass", ()), "q8_0/q8_0": ("fail", ("pp",)),
    }  # fmt: skip
    assert view.run_tone(after) == "bad"
    assert "remove the entry" in (suite.pytester.path / "s.md").read_text()


def test_a_cliff_declared_at_a_depth_is_not_missed_elsewhere(suite: Suite) -> None:
    declared = '[expect."q8_0/q8_0 @ d64"]\ncliff = "tg"\n'
    suite.run("--kv-depths=0", config=declared).assert_outcomes(passed=4)
    gone = suite.run(config=declared)
    gone.assert_outcomes(passed=7, failed=1)
    gone.stdout.fnmatch_lines(["FAILED*test_decode_speed[[]q8_0/q8_0-d64]*"])


def test_patterns_that_name_no_cell_are_told(suite: Suite) -> None:
    config = "[floors]\n'q8_O/*' = { pp = 0.5 }\n[expect]\n'*/q9_0' = { cliff = 'pp' }\n"
    ran = suite.run("--kv-depths=0", config=config)
    ran.stdout.fnmatch_lines(
        ["*[[]floors] 'q8_O/[*]' matches no cell*", "*[[]expect] '[*]/q9_0' matches no cell*"]
    )


def test_depths_that_the_model_is_too_short_for_are_told(suite: Suite) -> None:
    ran = suite.run("--kv-tg=0", depths="")
    ran.stdout.fnmatch_lines(
        ["*speed is timed at 3,584 instead of 8,192: the model was trained for*"]
    )


def test_what_was_found_before_a_death_still_counts(suite: Suite) -> None:
    ran = suite.run(planted={"dies_at": 64})
    ran.assert_outcomes(passed=6, failed=1, skipped=1)
    ran.stdout.fnmatch_lines(["*q8_0/q8_0: crashed. *That was while timing pp16 @ d64.*"])


def test_floors_are_configured_by_pair_and_depth(suite: Suite) -> None:
    ran = suite.run(planted={"pp": 1.25}, config='[floors]\n"*/q8_0 @ d64" = { pp = 0.9 }\n')
    ran.assert_outcomes(passed=7, failed=1)
    ran.stdout.fnmatch_lines(["FAILED*test_prefill_speed[[]q8_0/q8_0-d64]*"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--benchmark-disable"], "pytest-benchmark is disabled"),
        (["-p", "no:benchmark"], "pytest-benchmark is not loaded"),
        (["--kv-pp=0", "--kv-tg=4", "-k", "prefill_speed"], "--kv-pp is 0"),
    ],
    ids=["disabled", "no-plugin", "no-prefill"],
)
def test_what_was_not_measured_never_passes(suite: Suite, words: list[str], reason: str) -> None:
    ran = suite.run(*words)
    assert ran.parseoutcomes().get("passed", 0) == 0
    assert ran.parseoutcomes()["skipped"] >= 4
    ran.stdout.fnmatch_lines([f"*nothing was measured: {reason}*"])


@pytest.mark.parametrize("strict", [False, True], ids=["usual", "strict"])
def test_what_was_not_measured_is_in_the_summary_and_fails_where_strict(
    suite: Suite, strict: bool
) -> None:
    words = ["--benchmark-disable", "--kv-json=r.json", "--kv-summary=s.md", "-r", "N"]
    ran = suite.run(*words, *["--kv-strict"] * strict)
    ran.assert_outcomes(**{"failed" if strict else "skipped": 8})
    reason = "pytest-benchmark is disabled, and speed tests report through it"
    said = f"nothing was measured by 8 speed tests: {reason}"
    assert said in " ".join(ran.stdout.str().split())
    result = read(suite.pytester.path / "r.json")
    assert result.unmeasured == (Unmeasured(reason=reason, tests=8, open=True),)
    assert (view.run_tone(result) == "bad") is strict
    assert said in (suite.pytester.path / "s.md").read_text()
    (merged,) = merge([("a", result), ("b", result)]).unmeasured
    assert merged.tests == 16


def test_a_test_that_was_not_wanted_is_no_open_verdict(suite: Suite) -> None:
    ran = suite.run("--kv-pp=0", "--kv-strict", "--kv-json=r.json", "-k", "prefill_speed")
    ran.assert_outcomes(skipped=4)
    result = read(suite.pytester.path / "r.json")
    assert [(one.reason, one.open) for one in result.unmeasured] == [("--kv-pp is 0", False)]


def test_an_unknown_test_or_depth_is_a_mistake(suite: Suite) -> None:
    suite.pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize(("kind", "depth"), [("prefill", 0), ("pp", 32)])
        def test_own_speed(kv_speed, benchmark, kind, depth):
            kv_speed.check(kind, depth, benchmark)
    """)
    ran = suite.run("test_an_unknown_test_or_depth_is_a_mistake.py", "-k", "own_speed")
    ran.assert_outcomes(failed=4)
    ran.stdout.fnmatch_lines([
        f"*ValueError: 'prefill' is no speed test: it is one of {', '.join(NAMES)}.*",
        "*ValueError: Depth 32 is not visited by --kv-depths: 0, 64.*",
    ])  # fmt: skip


def test_speed_off_collects_no_speed_test(suite: Suite) -> None:
    ran = suite.run("--kv-speed=off", "--collect-only", "-q")
    ran.stdout.no_fnmatch_line("*::test_*_speed*")
