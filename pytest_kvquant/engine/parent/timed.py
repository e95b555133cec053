"""Parent side of the timing and of the search for the largest context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.matrix import Pair

Profile = Mapping[str, Sequence[Sequence[float]]]


class TimedWorker(Worker):
    """A worker that times prefill and decode; streams are numbered in the order of ``pairs``.

    Methods raise :class:`CellError` as those of :class:`Worker` do.
    """

    library_ns = 0
    """Time inside library calls, as of the last samples."""

    profile: Profile = {}  # noqa: RUF012  (replaced, never changed)
    """By kind: depth, and nanoseconds of a token of each stream, as of the last way up."""

    def __enter__(self) -> TimedWorker:
        return self

    def open_streams(
        self, pairs: Sequence[Pair], *, ctx: int, batch: int, ubatch: int, threads: int
    ) -> dict[str, Any]:
        """Make a context per pair, in this order; what they are, in ``llama-bench``'s words."""
        return self._ask(
            "time_open",
            pairs=[list(pair) for pair in pairs],
            ctx=ctx,
            batch=batch,
            ubatch=ubatch,
            threads=threads,
        ).fields

    def extend_to(self, depth: int) -> list[int]:
        """Extend every stream to ``depth``; tokens prefilled so far, per stream."""
        fields = self._ask("time_extend", depth=depth).fields
        self.profile = fields["profile"]
        prefilled: list[int] = fields["prefilled"]
        return prefilled

    def warm(self, kind: str, count: int, seconds: float) -> list[int]:
        """Warm up; repetitions of the test that a sample will be the mean of, per stream."""
        fields = self._ask("time_warm", kind=kind, count=count, seconds=seconds).fields
        repeats: list[int] = fields["repeats"]
        return repeats

    def samples(self, kind: str, count: int, order: Sequence[int]) -> list[int]:
        """Nanoseconds per test, a sample for each stream in ``order``; see ``timing.Bench``."""
        fields = self._ask("time_samples", kind=kind, count=count, order=list(order)).fields
        self.library_ns = fields["library_ns"]
        samples: list[int] = fields["samples"]
        return samples

    def limit_memory(self, size: int) -> bool:
        """Let the worker allocate at most ``size`` bytes; whether its system enforces that."""
        enforced: bool = self._ask("limit", size=size).fields["enforced"]
        return enforced

    def try_context(self, pair: Pair, *, ctx: int, batch: int, ubatch: int, threads: int) -> int:
        """Fill a context of ``ctx`` tokens and decode a batch at its end; by how many sequences."""
        fields = self._ask(
            "ceiling",
            type_k=pair.k,
            type_v=pair.v,
            ctx=ctx,
            batch=batch,
            ubatch=ubatch,
            threads=threads,
        ).fields
        return int(fields["sequences"])
