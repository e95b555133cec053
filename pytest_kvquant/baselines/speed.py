"""Speeds stored by an earlier run on the same hardware: the only source of absolute floors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from pytest_kvquant.errors import SettingsError
from pytest_kvquant.machine.files import read_regular
from pytest_kvquant.machine.hardware import Hardware
from pytest_kvquant.results import nonfinite
from pytest_kvquant.speed.stored import Stored, StoredSpeed


class SpeedConditions(NamedTuple):
    """What has to be equal, beside the hardware, for tok/s to be comparable."""

    n_threads: int
    n_batch: int
    n_ubatch: int
    n_gpu_layers: int
    setup: Mapping[str, str]
    """Options of llama.cpp in words."""

    def of(self, tokens: int) -> SpeedConditions:
        """As a test of so many tokens meets them: a batch is never larger than it."""
        return self._replace(n_batch=min(self.n_batch, tokens), n_ubatch=min(self.n_ubatch, tokens))


class _Roof(msgspec.Struct):
    rate: float


class _Test(msgspec.Struct):
    n_prompt: int
    n_gen: int
    n_depth: int
    n_threads: int
    n_batch: int
    n_ubatch: int
    n_gpu_layers: int
    verdict: str
    declared: bool
    samples_ts: list[float]
    reference_ns: list[int]
    name: str = ""
    roof: _Roof | None = None

    @property
    def kind(self) -> str:
        return self.name or ("pp" if self.n_prompt else "tg")

    @property
    def tokens(self) -> int:
        return self.n_prompt or self.n_gen

    def conditions(self, setup: Mapping[str, str]) -> SpeedConditions:
        return SpeedConditions(
            self.n_threads, self.n_batch, self.n_ubatch, self.n_gpu_layers, setup
        )

    def alike(self, setup: Mapping[str, str], conditions: SpeedConditions) -> bool:
        tokens = self.n_prompt or 1
        return self.conditions(setup).of(tokens) == conditions.of(tokens)

    @property
    def good(self) -> bool:
        """Whether this may be held up as the speed of the hardware."""
        return bool(self.reference_ns) and (self.verdict == "pass" or self.declared)


class _Cell(msgspec.Struct):
    pair: str
    tests: list[_Test]


class _Model(msgspec.Struct):
    fingerprint: str


class _Settings(msgspec.Struct):
    setup: dict[str, str] = {}


class _Result(msgspec.Struct):
    """The part of a result that matters here."""

    model: _Model
    settings: _Settings = msgspec.field(default_factory=_Settings)
    speed: list[_Cell] = []
    hardware: Hardware | None = None


def read_stored(
    path: Path, *, hardware: Hardware, model: str, conditions: SpeedConditions
) -> tuple[StoredSpeed, str]:
    """Read the result (``--kv-json``) of an earlier run.

    Args:
        model: fingerprint of the model of this run.

    Returns:
        The speeds that passed then, and why there are none (empty if there are).

    Raises:
        SettingsError: it cannot be read, or is not a result.
    """
    try:
        result = nonfinite.decode(read_regular(path), _Result)
    except (OSError, ValueError, RecursionError, msgspec.DecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(
            f"--kv-speed-baseline {path} is not a result written by --kv-json: {reason}."
        ) from None
    if result.hardware is None or result.hardware.fingerprint != hardware.fingerprint:
        theirs = result.hardware.name if result.hardware else "hardware that it does not name"
        return StoredSpeed(), (
            f"{path.name} was measured on {theirs}, this is {hardware.name}: no absolute floors"
        )
    if result.model.fingerprint != model:
        return StoredSpeed(), f"{path.name} was measured with another model: no absolute floors"
    timed = [(cell.pair, test) for cell in result.speed for test in cell.tests]
    setup = result.settings.setup
    alike = [(pair, test) for pair, test in timed if test.alike(setup, conditions)]
    if timed and not alike:
        theirs, ours = _words(timed[0][1].conditions(setup)), _words(conditions)
        return StoredSpeed(), (
            f"{path.name} was measured with {theirs}, this is {ours}: no absolute floors"
        )
    tests = {}
    for pair, test in alike:
        if test.good and all(map(math.isfinite, test.samples_ts)):
            tests[pair, test.kind, test.tokens, test.n_depth] = Stored(
                statistics.median(test.samples_ts),
                statistics.median(1e9 * test.tokens / ns for ns in test.reference_ns),
                test.roof.rate if test.roof else None,
            )
    return StoredSpeed(tests), "" if tests else f"{path.name} holds no speeds that passed"


def _words(conditions: SpeedConditions) -> str:
    plain = {name: value for name, value in conditions._asdict().items() if name != "setup"}
    given = {**plain, **conditions.setup}
    return ", ".join(f"{name.removeprefix('n_')} {value}" for name, value in given.items())
