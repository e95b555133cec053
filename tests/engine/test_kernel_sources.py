"""Kernels that a build reads at run time are part of its hash."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.engine.shaders import RESOURCES
from pytest_kvquant.machine.environment import scrub


def hash_with(folder: Path) -> str:
    engine = Engine(environment=scrub(dict(os.environ), {RESOURCES: str(folder)}), timeout=60)
    with Worker(engine) as worker:
        return str(worker.library(None, full=True)["hash"])


def test_an_edited_kernel_is_another_build(tmp_path: Path) -> None:
    empty = hash_with(tmp_path)
    kernel = tmp_path / "ggml-metal.metal"
    kernel.write_text("kernel void a() {}", encoding="ascii")
    first = hash_with(tmp_path)
    kernel.write_text("kernel void b() {}", encoding="ascii")
    assert len({empty, first, hash_with(tmp_path)}) == 3
    kernel.write_text("kernel void a() {}", encoding="ascii")
    assert hash_with(tmp_path) == first
