"""docs/apple.md names commands, options and tests that exist, and no speed of a Mac."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_kvquant.cli.main import parser
from pytest_kvquant.config.options import OPTIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "apple.md").read_text(encoding="utf-8")
CI = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "ci").glob("mac*"))
ROWS = re.findall(r"^\| (\d+) \|.*\| (.+) \|$", PAGE, re.MULTILINE)


def test_every_option_exists() -> None:
    named = set(re.findall(r"--kv-[a-z-]+", PAGE + CI))
    assert named <= {option.flag for option in OPTIONS} | {"--kv-matrix", "--kv-config"}
    assert len(named) > 8


def test_every_command_exists() -> None:
    commands = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    named = set(re.findall(r"kvquant (\w+)", re.sub(r"`\[.*?\]`", "", PAGE + CI)))
    assert {"doctor", "selfcheck", "alone"} <= named
    assert {name for name in named if name in ("doctor", "selfcheck", "alone")} <= set(commands)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)`", PAGE)) <= set(targets)


def test_each_of_the_21_is_closed_by_tests_that_exist() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 22))
    sources = {
        str(path.relative_to(ROOT / "tests")): path.read_text(encoding="utf-8")
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    everything = "\n".join(sources.values())
    for number, closed in ROWS:
        names = re.findall(r"`([^`]+)`", closed)
        assert names, number
        for name in names:
            file, _, test = name.rpartition("::") if "::" in name else ("", "", name)
            if name.endswith(".py"):
                assert name in sources, name
            else:
                where = sources[file] if file else everything
                assert re.search(rf"(def|class) {test}\b", where), name


def test_no_speed_is_claimed_for_a_mac() -> None:
    assert not re.search(r"\d tok/s", PAGE)
    assert "Nothing here was measured on a Mac" in PAGE
