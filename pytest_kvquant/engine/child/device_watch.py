"""Child side: whether the device still computes, whatever the calls return.

A Metal command buffer that fails leaves its outputs as they were and says so in the log alone:
``llama_decode`` and ``llama_synchronize`` have returned, and only the next batch gives an error,
in some builds not even that. So after each batch what was printed since is read, and where a
device other than the CPU computes one more token is decoded before results leave this process.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from pytest_kvquant.engine.device_errors import complaint, spoils

STANDARD_ERROR = 2
MOST = 1 << 16
"""Bytes of new text that are read; its beginning names the cause."""


class DeviceWatch:
    """What was printed to this process's log since it was last looked at.

    Args:
        descriptor: of the log, a regular file; of anything else nothing is seen.
    """

    def __init__(self, descriptor: int = STANDARD_ERROR) -> None:
        self._descriptor = descriptor
        self._seen = self._size()

    def failure(self) -> str | None:
        """Why what was computed since the last look is worthless; ``None``: nothing says so."""
        begin, size = self._seen, self._size()
        if size <= begin:
            return None
        self._seen = size
        text = os.pread(self._descriptor, min(size - begin, MOST), begin)
        told = text.decode("utf-8", errors="replace")
        if not spoils(told):
            return None
        found = complaint(told)
        return found.text if found else told.strip().splitlines()[0]

    def _size(self) -> int:
        with suppress(OSError):
            seen = os.fstat(self._descriptor)
            if stat.S_ISREG(seen.st_mode):
                return seen.st_size
        return 0
