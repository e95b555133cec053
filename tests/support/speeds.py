"""Runs in the real worker (``KVQUANT_WORKER_HOOK``): the real engine decodes, but time is planted.

``KVQUANT_SPEEDS`` is JSON: pair → test → how many times slower than f16 it is; ``slows`` adds to
that per 1,024 tokens of depth; ``once`` names a file, and only the process that makes it is slow;
``build`` is part of the path of the only library that is slow; ``stalls`` is how many of its first
batches take a hundred times as long; at the depth ``dies_at`` its process ends, or after
``dies_after`` batches; ``slow_at`` is depth → how many times slower it is there; ``beyond`` is a
depth and how many times slower all deeper ones are, ``only`` the kind of test that it is of.
f16 takes a millisecond a token, times ``all``; ``busy`` makes every second block of so many
batches, whosever they are, ten times slower.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from pytest_kvquant.engine.child import stream, timing

SPEEDS = json.loads(os.environ.get("KVQUANT_SPEEDS", "{}"))
REAL_DECODE = stream.Stream._decode
REAL_INIT = timing.Bench.__init__


class Clock:
    now = 0
    batches = 0
    monotonic = staticmethod(time.monotonic)

    def perf_counter_ns(self) -> int:
        return self.now


CLOCK = Clock()


def start(self: Any, model: Any, pairs: Any, **fields: Any) -> None:
    REAL_INIT(self, model, pairs, **fields)
    for stream_, pair in zip(self.streams, pairs[:-1] or pairs, strict=False):
        planted = SPEEDS.get("/".join(pair), {})
        if "once" in planted:
            marker = Path(planted["once"])
            planted = {} if marker.exists() else planted
            marker.touch()
        if planted.get("build", "") not in str(model.library.path):
            planted = {}
        stream_.planted = planted


def decode(self: Any, batch: Any) -> None:
    REAL_DECODE(self, batch)
    planted = getattr(self, "planted", {})
    if planted.get("dies_at") == self.depth or planted.get("dies_after") == getattr(
        self, "batches", 0
    ):
        os._exit(3)
    factor = planted.get("tg" if batch.n_tokens == 1 else "pp", 1)
    factor += planted.get("slows", 0) * self.depth / 1024
    factor *= planted.get("slow_at", {}).get(str(self.depth), 1)
    beyond, times = planted.get("beyond", (1 << 30, 1))
    kind = "tg" if batch.n_tokens == 1 else "pp"
    if self.depth >= beyond and planted.get("only", kind) == kind:
        factor *= times
    if planted.get("stalls", 0) > getattr(self, "batches", 0):
        factor *= 100
    self.batches = getattr(self, "batches", 0) + 1
    if (busy := SPEEDS.get("busy")) and CLOCK.batches // busy % 2:
        factor *= 10
    CLOCK.batches += 1
    CLOCK.now += int(batch.n_tokens * 1_000_000 * factor * SPEEDS.get("all", 1))


timing.time = stream.time = CLOCK  # type: ignore[assignment]
stream.Stream._decode = decode  # type: ignore[method-assign]
timing.Bench.__init__ = start  # type: ignore[method-assign]
