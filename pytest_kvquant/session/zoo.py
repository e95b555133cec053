"""The zoo of a run: pairs on tiny models of other head sizes, groupings and features."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pytest_kvquant.checks.declared import SCENARIOS
from pytest_kvquant.config.expectations import declared_failures, failures_on_member
from pytest_kvquant.config.overrides import Expect
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.parent.engine import BatchShape, Engine
from pytest_kvquant.engine.parent.kept import SteadinessCheck
from pytest_kvquant.engine.parent.timesheet import Timesheet
from pytest_kvquant.engine.parent.workers import Workers, usual_isolation
from pytest_kvquant.engine.parent.zygote import Zygote
from pytest_kvquant.errors import ModelError, SettingsError
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.coverage_plan import Level, level, shared_out
from pytest_kvquant.quality.examiner import Examined, Examiner
from pytest_kvquant.results.library import Library
from pytest_kvquant.results.zoo import ZooCell
from pytest_kvquant.session.zoo_verdict import Declared, judged
from pytest_kvquant.zoo.blocks import VOCABULARY
from pytest_kvquant.zoo.declaration import Member
from pytest_kvquant.zoo.known_faults import known_faults, with_known
from pytest_kvquant.zoo.members import ALL, HANDFUL, by_name
from pytest_kvquant.zoo.store import file_of

CELLS = 384
"""Tokens of a context: past 256, and past every window of the zoo."""
UBATCH = 128

SMALL = Level(
    "minimal", ((0, (1, UBATCH)), (250, (1, 2, 3, 8, 33)), (CELLS - 65, (1, 4, 33))), 8,
    scenarios=True, left_out=("most cache operations and slots", "batch sizes between"),
)  # fmt: skip
"""Every layer, in a few batch sizes: empty, before and past 256 tokens, and at the end."""

PLAYED = ("shift_head", "remove_tail", "slots_2_streams")
"""Cache operations and slots that are played there: what has been seen to kill some geometries
alone, what every draft does, and the least of several sequences."""

WORDS = ("off", "on", "handful", "all")


class ZooPlace(NamedTuple):
    """One test: a member and a pair."""

    member: str
    pair: Pair

    def __str__(self) -> str:
        return f"{self.member}-{self.pair}"


def asked_for(settings: Settings) -> str:
    """What ``--kv-zoo`` says; unless it says anything, what belongs to how much is examined."""
    if settings.zoo is None:
        return {"standard": "handful", "full": "all"}.get(settings.coverage_level, "off")
    if settings.zoo == "on":
        return "all" if settings.profile == "nightly" else "handful"
    return settings.zoo


def planned(settings: Settings, members: Sequence[str], pairs: Sequence[Pair]) -> list[ZooPlace]:
    """Members and pairs: all on all, but for the handful of a run that did not ask for it.

    There members are shared out: each K type and each V type meets every one of them.
    """
    if settings.zoo is not None or settings.coverage_level != "standard":
        return [ZooPlace(member, pair) for member in members for pair in pairs]
    shared = shared_out(members, pairs)
    return [ZooPlace(name, pair) for name in members for pair in pairs if pair in shared[name]]


def chosen(settings: Settings) -> tuple[Member, ...]:
    """The members that a run asks for.

    Raises:
        SettingsError: there is no such member.
    """
    asked = asked_for(settings)
    if asked == "off":
        return ()
    if asked == "all":
        return ALL
    names = HANDFUL if asked == "handful" else tuple(asked.split(","))
    known = [member.name for member in ALL]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *WORDS], 1)
            hint = f"; did you mean '{near[0]}'?" if near else f". It has: {', '.join(known)}."
            raise SettingsError(f"--kv-zoo: the zoo has no member '{name}'{hint}")
    return tuple(by_name(name) for name in names)


class Enclosure(NamedTuple):
    """Where a member lives."""

    examiner: Examiner
    workers: Workers


class ZooRun:
    """Examines pairs on members, each pair of a member once.

    Args:
        folder: where models are kept.
        timesheet: told where the time goes.
        off_device: pairs that are declared to leave their attention to the CPU.
        zygote: what workers of the engine begin as; theirs otherwise.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        pairs: Sequence[Pair],
        *,
        folder: Path,
        library: Library,
        expect: Mapping[str, Expect],
        threads: int,
        timesheet: Timesheet | None = None,
        off_device: Collection[Pair] = (),
        zygote: Zygote | None = None,
    ) -> None:
        self._settings, self._engine, self._folder = settings, engine, folder
        self._library, self._expect, self._threads = library, expect, threads
        self._timesheet = timesheet or Timesheet()
        self._zygote = zygote
        self._off_device = frozenset(off_device)
        self.members = chosen(settings)
        self.plan = planned(settings, [member.name for member in self.members], pairs)
        """What is tested, member by member."""
        self._enclosures: dict[str, Enclosure] = {}
        self._cells: dict[ZooPlace, ZooCell] = {}
        self._replaced: dict[Pair, set[tuple[str, str]]] = {}
        """Types that attention of a pair reads in a fresh process: some builds replace them."""

    def measure(self, place: ZooPlace) -> ZooCell:
        """The findings of one place, made now if they have not been.

        Raises:
            ModelError: the model cannot be written.
        """
        if place not in self._cells:
            with self._timesheet.scope("zoo"):
                self._cells[place] = self._measure(place)
        return self._cells[place]

    @property
    def cells(self) -> tuple[ZooCell, ...]:
        """What was measured, in the order of the plan."""
        return tuple(self._cells[place] for place in self.plan if place in self._cells)

    def _measure(self, place: ZooPlace) -> ZooCell:
        """As a cell of the user's model is: what a kept process says other than pass, a fresh one
        has to say as well."""
        enclosure = self._enclosure(place.member)
        workers, examiner = enclosure.workers, enclosure.examiner
        found = self._look(place, examiner)
        own = self._replaced.setdefault(place.pair, {(place.pair.k, place.pair.v)})
        doubtful = found.verdict != "pass" or not types_of(found) <= own
        if workers.keeps and (doubtful or workers.objection()):
            examiner.forget(place.pair)
            with workers.doubting():
                found = self._look(place, examiner)
            own |= types_of(found)
        return found

    def _look(self, place: ZooPlace, examiner: Examiner) -> ZooCell:
        member = by_name(place.member)
        found = with_known(examiner.examine(place.pair), known_faults(member, place.pair))
        return judged(
            member,
            place.pair,
            found,
            examiner.examine(REFERENCE),
            self._declared(place),
            off_device=place.pair in self._off_device,
        )

    def _enclosure(self, name: str) -> Enclosure:
        if name not in self._enclosures:
            for other in self._enclosures.values():  # members come one after another
                other.workers.rest()
            self._enclosures[name] = self._enclose(name)
        return self._enclosures[name]

    def _enclose(self, name: str) -> Enclosure:
        try:
            path = file_of(by_name(name), self._folder)
        except OSError as error:
            raise ModelError(
                f"The zoo's model {name} cannot be written to {self._folder} "
                f"({error.strerror}); free space there, or leave --kv-zoo out."
            ) from None
        model = read_model(path, hashed=False)
        layers = self._settings.gpu_layers
        isolation = self._settings.isolation or usual_isolation(self._library)
        generator = np.random.default_rng(self._settings.seed)
        tokens = generator.integers(1, min(VOCABULARY, 257), CELLS).astype(np.int32)
        workers = Workers(
            self._engine,
            model.path,
            layers,
            isolation,
            timesheet=self._timesheet,
            zygote=self._zygote,
        )
        self._zygote = workers.zygote
        workers.check = SteadinessCheck(
            tokens,
            BatchShape(
                ctx=CELLS,
                scored=UBATCH,
                sequences=1,
                batch=CELLS,
                ubatch=UBATCH,
                threads=self._threads,
            ),
        )
        subject = Examined(
            self._engine,
            model,
            layers,
            tokens,
            ubatch=UBATCH,
            threads=self._threads,
            seed=self._settings.seed,
            build=self._library.build,
            workers=workers,
            scenarios=PLAYED if self._level() is SMALL else (),
            excused={
                one.pair: self._excused(one)
                for one in self.plan
                if one.member == name and one.pair != REFERENCE
            },
        )
        return Enclosure(Examiner(subject, self._level()), workers)

    def _declared(self, place: ZooPlace) -> Declared:
        device = self._library.device
        return Declared(
            failures_on_member(place.pair, device, self._expect, place.member),
            declared_failures(place.pair, device, self._expect),
        )

    def _excused(self, place: ZooPlace) -> frozenset[str]:
        """Scenarios that may fail there and need not: a death that decides nothing costs a process
        all the same."""
        declared = self._declared(place)
        names = declared.elsewhere - declared.here
        return frozenset(one.removeprefix(SCENARIOS) for one in names if one.startswith(SCENARIOS))

    def _level(self) -> Level:
        if self._settings.coverage_level != "full":
            return SMALL
        return level("full", cells=CELLS, ubatch=UBATCH)


def types_of(cell: ZooCell) -> set[tuple[str, str]]:
    """K and V type that attention read: a cache of the process before may have left others (the
    fork's ``turbo2``)."""
    corners = cell.kernels.judged if cell.kernels is not None else ()
    return {(one.k_type, one.v_type) for one in corners if one.operation == "attention"}
