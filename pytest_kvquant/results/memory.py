"""What a cell's decodes and contexts leave behind in memory."""

from __future__ import annotations

import msgspec


class SteadyMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that stay, by device; ``host``: of the worker's process."""

    per_token: dict[str, float] = {}
    """Bytes a token decoded one at a time leaves behind: the median over blocks."""
    per_context: dict[str, float] = {}
    """Bytes a context leaves behind that was made, used and freed: the median."""
    compute: dict[str, float] = {}
    """MiB of the compute buffer by device, as the library's log says."""
    elsewhere: dict[str, float] = {}
    """Bytes by which what is free on a GPU moved while the worker did nothing: the most between two
    readings, because of other processes."""
