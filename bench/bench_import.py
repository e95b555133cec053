"""What everybody pays who has the plugin installed, and what a matrix pays before it measures.

``KVQUANT_OTHER`` names the sources of another version: each figure is then taken of both, in turn,
in one run.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[1]
ROUNDS = 15
LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s*(\S+)")


def sources() -> dict[str, Path]:
    """This version, and the other one where there is one."""
    other = os.environ.get("KVQUANT_OTHER")
    return {"here": HERE, **({"other": Path(other)} if other else {})}


def run(folder: Path, package: Path, *words: str) -> tuple[float, str]:
    """CPU milliseconds of a Python process and its children, and what it wrote to both streams."""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    for name in ("PYTHONPROFILEIMPORTTIME", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(name, None)
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
    return 1e3 * spent, done.stdout + done.stderr


def imports(text: str) -> list[tuple[int, int, str]]:
    """Microseconds of a module by itself, with what it imports, and its name."""
    found = LINE.findall(text)
    return [(int(own), int(whole), name) for own, whole, name in found]


def in_turn(
    measure: Callable[[Path], tuple[float, float]], rounds: int = ROUNDS
) -> dict[str, list[tuple[float, float]]]:
    """What was measured of each version, by its name; the first time compiles, and is left out."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sources()}
    for number in range(rounds + 1):
        for name, package in sources().items():
            found = measure(package)
            if number:
                taken[name].append(found)
    return taken


def test_importing_the_plugin(benchmark: Any, tmp_path: Path) -> None:
    """``import pytest_kvquant.plugin`` over ``import pytest``."""

    def share(package: Path) -> tuple[float, float]:
        command = ("-X", "importtime", "-c", "import pytest\nimport pytest_kvquant.plugin")
        whole = {name: total for _, total, name in imports(run(tmp_path, package, *command)[1])}
        own = whole["pytest_kvquant"] + whole["pytest_kvquant.plugin"]
        return own / 1e3, own / whole["pytest"]

    taken = in_turn(share)
    for name, values in taken.items():
        milliseconds, ratio = (statistics.median(column) for column in zip(*values, strict=True))
        benchmark.extra_info[name] = {"ms": milliseconds, "over pytest": ratio}
        print(f"\nimport of the plugin, {name}: {milliseconds:.2f} ms, {ratio:.3f} of pytest's own")
    benchmark.pedantic(share, (HERE,), rounds=1)


def test_what_an_unrelated_run_pays(benchmark: Any, tmp_path: Path) -> None:
    """CPU time of ``pytest`` on a file of one test, with the plugin less without: at most 5 ms."""
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n", encoding="utf-8")

    def paid(package: Path) -> tuple[float, float]:
        command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py")
        with_it, _ = run(tmp_path, package, *command)
        without, _ = run(tmp_path, package, *command, "-p", "no:kvquant")
        return with_it - without, with_it / without

    taken = in_turn(paid)
    for name, values in taken.items():
        more, ratio = (statistics.median(column) for column in zip(*values, strict=True))
        benchmark.extra_info[name] = {"ms more": more, "with over without": ratio}
        print(f"\nan unrelated run, {name}: {more:.1f} ms more (target 5), {ratio:.3f} times")
    benchmark.pedantic(paid, (HERE,), rounds=1)


@pytest.mark.parametrize("matrix", [False, True], ids=["without", "with --kv-matrix"])
def test_imports_of_a_whole_process(benchmark: Any, tmp_path: Path, matrix: bool) -> None:
    """All imports of ``pytest --collect-only``, over those of pytest without the plugin."""
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n", encoding="utf-8")
    options = ["--kv-matrix", "--kv-store", str(tmp_path / "store")] if matrix else ["test_one.py"]

    def total(package: Path, *words: str) -> float:
        command = ("-X", "importtime", "-m", "pytest", "--collect-only", "-q", *words)
        return sum(own for own, _, _ in imports(run(tmp_path, package, *command)[1])) / 1e3

    def share(package: Path) -> tuple[float, float]:
        own = total(package, *options)
        return own, own / total(package, "test_one.py", "-p", "no:kvquant")

    taken = in_turn(share, rounds=5)
    for name, values in taken.items():
        milliseconds, ratio = (statistics.median(column) for column in zip(*values, strict=True))
        benchmark.extra_info[name] = {"ms": milliseconds, "over pytest without": ratio}
        print(f"\nall imports, {name}: {milliseconds:.0f} ms, {ratio:.2f} of pytest's alone")
    benchmark.pedantic(total, (HERE, *options), rounds=1)
