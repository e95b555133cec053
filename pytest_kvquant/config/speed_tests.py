"""What can be timed of a pair: one declaration a speed test, and nothing else names it.

Its option and setting, its floor in ``[floors]``, its place in ``[expect]`` and in the suite, what
the worker does and what the result calls it follow from here.
"""

from __future__ import annotations

from typing import NamedTuple


class DeclaredSpeedTest(NamedTuple):
    """One speed test."""

    name: str
    """As ``llama-bench`` would write it before the number of tokens: ``pp`` of ``pp512``. Also the
    option, the key of floors, and what a cliff is declared under."""
    title: str
    """For people: what is timed."""
    test: str
    """Of the suite."""
    document: str
    """What that test asserts, in a sentence."""
    help: str
    """Of the option: tokens of one test."""
    at_once: int
    """Tokens of each ``llama_decode``, synchronized one by one; 0: as many as ``n_batch``,
    synchronized at the end."""
    tokens: int
    """Of a test, where nothing was asked for."""
    embedded: int
    """The same of the embedded model, which is for a first look."""
    on_cpu: int | None = None
    """The same where no other device computes; ``None``: no less."""
    floor: float | None = None
    """Least share of the speed of f16 where no table says one; ``None``: the packaged table does,
    for every pair."""
    ends_all: bool = False
    """Whether a cliff of it ends the way down: the depths themselves are filled so."""


SPEED_TESTS: tuple[DeclaredSpeedTest, ...] = (
    DeclaredSpeedTest(
        name="pp",
        title="prefill",
        test="test_prefill_speed",
        document="Prompts are processed at no less than the floor's share of the speed of f16.",
        help="tokens of the prefill test (default: 512; embedded model: 32)",
        at_once=0,
        tokens=512,
        embedded=32,
        ends_all=True,
    ),
    DeclaredSpeedTest(
        name="tg",
        title="decode",
        test="test_decode_speed",
        document="Tokens are generated at no less than the floor's share of the speed of f16.",
        help="tokens of the decode test (default: 128; on a CPU 32; embedded: 16)",
        at_once=1,
        tokens=128,
        embedded=16,
        on_cpu=32,  # some types decode two a second at depth
    ),
)
"""In the order in which they are taken at a depth."""

NAMES = tuple(one.name for one in SPEED_TESTS)


def named(name: str) -> DeclaredSpeedTest:
    """A declaration by its name.

    Raises:
        KeyError: there is none of it.
    """
    return {one.name: one for one in SPEED_TESTS}[name]
