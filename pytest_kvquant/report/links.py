"""Where a pair, a gate or a speed test stands in the page: the part of its address after ``#``."""

from __future__ import annotations

import re


def anchor(pair: str, part: str = "") -> str:
    """The place of a pair, or of one gate, check or speed test of it.

    >>> anchor("q8_0/turbo4"), anchor("q8_0/turbo4", "kl_mean"), anchor("f16/f16", "tg128 @ d8192")
    ('q8_0-turbo4', 'q8_0-turbo4--kl_mean', 'f16-f16--tg128-d8192')
    """
    place = re.sub(r"[^A-Za-z0-9_.]+", "-", pair).strip("-")
    return f"{place}--{re.sub(r'[^A-Za-z0-9_.]+', '-', part).strip('-')}" if part else place


def link(page: str, pair: str, part: str = "") -> str:
    """The address of a place in a page.

    >>> link("kv.html", "q8_0/q4_0", "kl_mean")
    'kv.html#q8_0-q4_0--kl_mean'
    """
    return f"{page}#{anchor(pair, part)}"
