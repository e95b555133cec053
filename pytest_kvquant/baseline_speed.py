"""Speeds stored by an earlier run on the same hardware: the only source of absolute floors."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from pytest_kvquant.errors import SettingsError
from pytest_kvquant.hardware import Hardware
from pytest_kvquant.matrix import Pair


class Stored(NamedTuple):
    """Median tok/s of a test, then."""

    cell: float
    reference: float


class StoredSpeed:
    """Finds stored speeds; empty where there is no baseline or it is of other hardware."""

    def __init__(self, tests: Mapping[tuple[str, str, int, int], Stored] | None = None) -> None:
        self._tests = dict(tests or {})

    def find(self, pair: Pair, kind: str, count: int, depth: int) -> Stored | None:
        """The stored speed of a test."""
        return self._tests.get((str(pair), kind, count, depth))


class _Test(msgspec.Struct):
    n_prompt: int
    n_gen: int
    n_depth: int
    samples_ts: list[float]
    reference_ns: list[int]


class _Cell(msgspec.Struct):
    pair: str
    tests: list[_Test]


class _Model(msgspec.Struct):
    fingerprint: str


class _Result(msgspec.Struct):
    """The part of a result that matters here."""

    model: _Model
    speed: list[_Cell] = []
    hardware: Hardware | None = None


def read_stored(path: Path, *, hardware: Hardware, model: str) -> tuple[StoredSpeed, str]:
    """Read the result (``--kv-json``) of an earlier run.

    Args:
        model: fingerprint of the model of this run.

    Returns:
        The speeds, and why there are none (empty if there are).

    Raises:
        SettingsError: it cannot be read, or is not a result.
    """
    try:
        result = msgspec.json.decode(path.read_bytes(), type=_Result)
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(
            f"--kv-speed-baseline {path} is not a result written by --kv-json: {error}."
        ) from None
    if result.hardware is None or result.hardware.fingerprint != hardware.fingerprint:
        theirs = result.hardware.name if result.hardware else "hardware that it does not name"
        return StoredSpeed(), (
            f"{path.name} was measured on {theirs}, this is {hardware.name}: no absolute floors"
        )
    if result.model.fingerprint != model:
        return StoredSpeed(), f"{path.name} was measured with another model: no absolute floors"
    tests = {}
    for cell in result.speed:
        for test in cell.tests:
            kind, count = ("pp", test.n_prompt) if test.n_prompt else ("tg", test.n_gen)
            tests[cell.pair, kind, count, test.n_depth] = Stored(
                statistics.median(test.samples_ts),
                statistics.median(1e9 * count / ns for ns in test.reference_ns),
            )
    return StoredSpeed(tests), "" if tests else f"{path.name} holds no speeds"
