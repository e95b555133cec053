"""Whether RPC servers answer: the library aborts where one does not, at the start or later."""

from __future__ import annotations

import socket

PATIENCE = 2.0
"""Seconds for a connection."""


def answers(server: str) -> bool:
    """Whether a connection to ``HOST:PORT`` is taken."""
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, ValueError):
        return False
    return True
