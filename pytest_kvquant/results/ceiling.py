"""The ceiling part of the result."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_kvquant import format
from pytest_kvquant.inputs.geometry import Need


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One context, tried in a process of its own."""

    context: int
    """Tokens."""
    outcome: str
    """``fits``, or how the attempt ended: ``out-of-memory``, ``crashed``, ``strained`` (the machine
    began to suffer, and the attempt was stopped), …"""
    text: str
    """What happened, in words."""
    seconds: float
    """Wall time, seconds."""


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """The largest context of a pair that was allocated, filled, and decoded at its end."""

    pair: str
    """As `K/V`."""
    tokens: int
    """0: none of those tried."""
    bound: int
    """The largest that was tried: the limit, or what memory could hold at best."""
    predicted: int
    """Tokens whose cache fills ``memory``."""
    memory: int
    """Bytes that a cache might take: the limit, else what was free beside the weights on a GPU."""
    limited: bool = False
    """Whether the system kept the processes to that; it does not on macOS or for a GPU's memory."""
    bytes_per_token: int
    """While every layer holds every token."""
    windowed_bytes_per_token: int | None = 0
    """Of these, in layers that hold only ``window_cells`` tokens; ``None``: not known."""
    window_cells: int = 0
    """Cells of the sliding-window cache; 0 where there is none."""
    batch: int = 0
    """n_batch, tokens."""
    ubatch: int = 0
    """The context's, as in the rest of the run; so many tokens were decoded at its end."""
    sequences: int = 0
    """That filled the cache; 1: every token was prefilled, 0: no attempt came so far."""
    attempts: tuple[Attempt, ...]
    """What was tried, in order."""
    seconds: float
    """Wall time of the search, seconds."""
    floor: int = 1
    """Tokens that have to work."""
    verdict: Literal["pass", "fail", "inconclusive"] = "pass"
    """Against the floor; ``inconclusive`` where it was not tried, or took too long to tell."""

    def against(self, floor: int) -> Ceiling:
        """The same, judged by another floor."""
        needed = max(floor, min(one.context for one in self.attempts))
        refused = any(
            one.context <= needed and one.outcome not in ("fits", "timeout", "strained")
            for one in self.attempts
        )
        verdict: Literal["pass", "fail", "inconclusive"] = "inconclusive"
        if self.tokens >= floor:
            verdict = "pass"
        elif refused or self._need.least(floor) > self.memory:
            verdict = "fail"
        return msgspec.structs.replace(self, floor=floor, verdict=verdict)

    @property
    def line(self) -> str:
        """The finding in words, and the floor if there is one."""
        return f"{self.text}; the floor is {self.floor:,}" if self.floor > 1 else self.text

    @property
    def failure(self) -> str:
        """The same, and below it what was tried."""
        tried = [
            f"  {one.context:>9,}  {one.outcome} ({format.seconds(one.seconds)}) {one.text}"
            for one in self.attempts
        ]
        return "\n".join([self.line, *tried])

    @property
    def undecided(self) -> int:
        """Tokens that took too long to tell whether they fit; 0 where a larger context does not."""
        beyond = [one for one in self.attempts if one.context > self.tokens]
        nearest = min(beyond, key=lambda one: one.context, default=None)
        return nearest.context if nearest and nearest.outcome == "timeout" else 0

    @property
    def strained(self) -> int:
        """Tokens at which the machine began to suffer, so that the search ended; 0: it did not."""
        return next((one.context for one in self.attempts if one.outcome == "strained"), 0)

    @property
    def text(self) -> str:
        """The finding in words."""
        if not self.tokens:
            last = self.attempts[-1]
            what = "is known to work" if self.undecided else "works"
            return f"no context {what}: {last.context:,} tokens: {last.outcome}. {last.text}"
        where = ", the largest tried" if self.tokens == self.bound else ""
        if self.undecided:
            where = f", {self.undecided:,} took too long to tell,"
        if self.strained:
            where = f", {self.strained:,} made the machine suffer and was stopped,"
        share = f", {self.tokens / self.predicted:.0%} of" if self.predicted else ";"
        return (
            f"{self.tokens:,} tokens work{where}{share} the {self.predicted:,} that "
            f"{format.size(self.memory)} hold at {self.bytes_per_token:,} bytes per token"
            f"{self._windows}"
        )

    @property
    def _need(self) -> Need:
        return Need(self.bytes_per_token, self.windowed_bytes_per_token, self.window_cells)

    @property
    def _windows(self) -> str:
        if not self.window_cells:
            return ""
        if self.windowed_bytes_per_token is None:
            return ", as if no layer had a window"
        return f", {self.windowed_bytes_per_token:,} of them for {self.window_cells:,} tokens only"
