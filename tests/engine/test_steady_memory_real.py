"""A leak that changes no logit is seen, in decodes and in contexts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support import run

from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.parent.engine import BatchShape, Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE, Pair

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

BRIEF = {"ctx": 64, "chunks": 2, "decode": 4, "trajectory": 0, "coverage": "off"}
PAIR = Pair("q8_0", "q8_0")

KEEPS = """
from pytest_kvquant.engine.child.context import Context

kept = []
honest_init, honest_decode = Context.__init__, Context.decode

def keep():
    kept.append(np.ones(4 << 20, np.uint8))

def init(self, *given, **named):
    honest_init(self, *given, **named)
    {context}

def decode(self, tokens, *rest):
    {decode}
    return honest_decode(self, tokens, *rest)

plant()
Context.__init__, Context.decode = init, decode
"""


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("", "at most 0 KiB stay after a token"),
        ("decode", "MiB stay in the process after every token"),
        ("context", "MiB stay in the process after every context that was freed"),
    ],
    ids=["none", "token", "context"],
)
def test_a_leak_fails(tmp_path: Path, where: str, text: str) -> None:
    hook = KEEPS.format(**{one: "keep()" if one == where else "pass"
                           for one in ("decode", "context")})  # fmt: skip
    cell = run.start(tmp_path, pairs=(str(PAIR),), hook=hook, **BRIEF).measure(PAIR)
    check = next(one for one in cell.checks if one.name == "steady_memory")
    assert check.verdict == ("fail" if where else "pass"), check.text
    assert text in check.text


def test_what_the_allocator_keeps_for_later_is_no_leak() -> None:
    """glibc holds freed blocks of megabytes back after some contexts and not after others."""
    engine = Engine(environment=scrub(dict(os.environ), {}), timeout=120)
    shape = BatchShape(ctx=512, scored=255, sequences=4, batch=2048, ubatch=512, threads=1)
    with Worker(engine) as worker:
        worker.library(None)
        worker.model(str(EMBEDDED_MODEL), gpu_layers=0)
        worker.open(REFERENCE, shape)
        read = [one["host"] for one in worker.steady(REFERENCE, shape).contexts]
    assert max(read) - min(read) < 1 << 19
