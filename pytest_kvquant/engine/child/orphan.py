"""A worker ends with the process that started it, however that ended and whatever it is doing.

A worker inside a kernel that never returns hears no message. So a thread of its own waits for the
line to the parent to be hung up: when the parent is gone, by ``kill -9`` too, the system does that,
and the thread ends the process from under the kernel (ctypes calls run without the GIL).
"""

from __future__ import annotations

import os
import select
import threading

ORPHANED = 113
"""Exit code of a worker that noticed."""

_watched: list[int] = []
"""The descriptor that this process, or the one that it is a copy of, waits on."""


def end_with(line: int) -> None:
    """See to it that this process ends when the other end of a line is hung up.

    Args:
        line: file descriptor of this end of a socket pair; it stays what it is.
    """
    while _watched:  # in a copy: what it was copied from watches that, and is seen to end
        os.close(_watched.pop())
    own = os.dup(line)  # whoever closes the line itself must not make another file of the number
    _watched.append(own)
    threading.Thread(target=_wait, args=(own,), name="parent", daemon=True).start()


def _wait(line: int) -> None:
    hung_up = select.poll()
    hung_up.register(line, 0)  # nothing but the end is asked for, and that always comes
    while not any(event & (select.POLLHUP | select.POLLERR) for _, event in hung_up.poll()):
        pass
    os._exit(ORPHANED)
