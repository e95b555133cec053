"""How the RPC servers of ``make rpc`` are built."""

from __future__ import annotations

import os
from pathlib import Path

from rpc.build import compiling


def jobs(command: list[str]) -> str:
    return command[command.index("--parallel") + 1]


def test_as_many_compilers_as_cores() -> None:
    # without a number `make -j` starts one for each of some 200 files, and the memory is gone
    assert jobs(compiling(Path("build"), {})) == str(os.cpu_count())


def test_fewer_where_the_shell_says_so() -> None:
    assert jobs(compiling(Path("build"), {"CMAKE_BUILD_PARALLEL_LEVEL": "1"})) == "1"
