"""How hot a Mac is: its thermal pressure level, which needs no root.

``pmset -g therm`` records no CPU limit on Apple silicon: it would say "never throttled" for ever.
The level is the state of a Darwin notification (``notify(3)``); its numbers are those of
``OSThermalNotification.h`` in Apple's published sources. ``notifyutil -g`` prints the same.
"""

from __future__ import annotations

import ctypes

NAME = b"com.apple.system.thermalpressurelevel"
LEVELS = ("nominal", "moderate", "heavy", "trapping", "sleeping")
"""By number: from the second on the system holds the machine back."""

STATUS_OK = 0


def thermal_pressure(library: ctypes.CDLL | None = None) -> str | None:
    """One of :data:`LEVELS`; ``None`` where the system does not tell.

    Args:
        library: with the functions of ``notify.h``; ``None``: those of this process.
    """
    number = _state(library if library is not None else ctypes.CDLL(None))
    return level_name(number) if number is not None else None


def level_name(number: int) -> str | None:
    """The word for a level; one that is not known yet counts as the highest known.

    >>> level_name(0), level_name(2), level_name(9)
    ('nominal', 'heavy', 'sleeping')
    """
    return LEVELS[min(number, len(LEVELS) - 1)] if number >= 0 else None


def _state(library: ctypes.CDLL) -> int | None:
    """``notify_get_state`` of a token that is given back at once."""
    try:
        register, get, cancel = (
            library.notify_register_check,
            library.notify_get_state,
            library.notify_cancel,
        )
    except AttributeError:  # not macOS
        return None
    register.argtypes = (ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))
    get.argtypes = (ctypes.c_int, ctypes.POINTER(ctypes.c_uint64))
    cancel.argtypes = (ctypes.c_int,)
    token, state = ctypes.c_int(), ctypes.c_uint64()
    if register(NAME, ctypes.byref(token)) != STATUS_OK:
        return None
    try:
        known = get(token, ctypes.byref(state)) == STATUS_OK
    finally:
        cancel(token)
    return state.value if known else None
