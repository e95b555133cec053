"""How long a run will take: from its plan, and from what the same took last time."""

from __future__ import annotations

from pytest_kvquant.machine.files import cache_folder
from pytest_kvquant.numerics.eta import Kind
from pytest_kvquant.session import pace
from pytest_kvquant.session.account import RunAccount
from pytest_kvquant.session.compared import Compared
from pytest_kvquant.session.guesses import guesses
from pytest_kvquant.session.observer import Observer
from pytest_kvquant.session.prepared import Prepared
from pytest_kvquant.speed.methods import TOGETHER
from pytest_kvquant.speed.plan import SpeedPlan

ONCE = ("control", "end")
"""Kinds that happen once, much of them in the first run here alone: loops are compiled. What they
took says nothing of the others, and a run that compiled is not remembered for the next."""


class Forecast:
    """Tells the observer what is to come."""

    def __init__(
        self, ready: Prepared, compared: Compared, speed: SpeedPlan, observer: Observer
    ) -> None:
        self._ready, self._compared = ready, compared
        self._speed, self._observer = speed, observer
        self._loops = 0

    def plan(self, account: RunAccount, *, measured: int, timed: int, searched: int) -> None:
        """Tell what this run will take, as far as it is known.

        Args:
            measured: pairs whose quality tests ask for.
            timed: pairs whose speed they ask for.
            searched: pairs whose largest context they ask for.
        """
        ready = self._ready
        self._loops = pace.kept_loops(cache_folder())
        known = guesses(
            ready.settings, ready.model, ready.task, self._speed, compiled=self._loops > 0
        )
        computed = measured and not self._compared.source.complete(0)
        units = {
            "reference": known["reference"][0] if computed else 0.0,
            "control": float(measured > 0),
            "first": float(measured > 0),
            "cell": float(max(measured - 1, 0)),
            "speed": float(timed + -(-timed // TOGETHER)),  # and f16 once a group
            "ceiling": float(searched),
            "end": 1.0,
        }
        earlier = pace.remembered(cache_folder(), self._key)
        # The first pair compiles the last loops where no earlier run has.
        once = ONCE if self._loops else (*ONCE, "first")
        kinds = {
            name: Kind(
                units[name], max(earlier.get(name, known[name][1]), 1e-3), steady=name not in once
            )
            for name in units
        }
        trusted = all(name in earlier for name in units if units[name] and name not in ONCE)
        self._observer.plan(kinds, len(account.selected), trusted=trusted)

    def remember(self) -> None:
        """Keep what the parts of this run took, for the forecast of the next one."""
        compiled = pace.kept_loops(cache_folder()) > self._loops
        rates = {
            name: rate
            for name, rate in self._observer.rates().items()
            if not (compiled and name in ONCE)
        }
        if rates:
            pace.remember(cache_folder(), self._key, rates)

    @property
    def _key(self) -> str:
        """What a run's pace depends on."""
        ready, settings = self._ready, self._ready.settings
        return pace.key(
            ready.model.fingerprint, ready.library.hash, ready.library.computing, ready.task.shape,
            settings.profile, settings.chunks, settings.decode, settings.trajectory,
            settings.recall, settings.probe, settings.coverage, settings.healthy, self._speed,
            settings.reference_logits, sorted(ready.setup.items()),
        )  # fmt: skip
