"""Examines the kernels of pairs: the oracle and the ladder on one ascent, then cache operations.

f16 is examined first and as every other; its logits stay in a folder for the others. A scenario
that kills the worker costs that scenario: the next ones go on in a fresh process.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pytest_kvquant.engine.messages.cell import Step
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.examination import WatchPlan
from pytest_kvquant.engine.parent.workers import Workers
from pytest_kvquant.errors import CellError
from pytest_kvquant.inputs.attention import attention_facts
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.arrays import I32
from pytest_kvquant.quality.batch_noise import on_cpu
from pytest_kvquant.quality.coverage_plan import Level, sampled, shared_out
from pytest_kvquant.quality.findings import with_seen
from pytest_kvquant.quality.ladder import Ladder
from pytest_kvquant.quality.scenario_limits import own_limit, reference_limit
from pytest_kvquant.quality.scenario_stage import ScenarioStage, may_be_jumps
from pytest_kvquant.quality.scenario_verdict import OfScenario, ScenarioLimits, without_known
from pytest_kvquant.quality.scenarios.registry import Scenario, all_scenarios
from pytest_kvquant.quality.workplace import Workplace
from pytest_kvquant.results.kernels import Examination

RESTORED = "shifts after a state was restored: which cell a token went to is not recomputed"


class Examined(NamedTuple):
    """What is examined: a model on an engine, with a text."""

    engine: Engine
    model: Model
    gpu_layers: int
    tokens: I32
    """A text; at least as many tokens as the contexts hold."""
    ubatch: int = 512
    threads: int = 1
    seed: int = 0
    build: str = ""
    reproducers: Path | None = None
    """Where inputs and outputs of wrong nodes go."""
    scenario_files: tuple[Path, ...] = ()
    scenarios: tuple[str, ...] = ()
    """Names of those that are played; empty: all of the level."""
    pairs: tuple[Pair, ...] = ()
    """Of the run: scenarios of the level ``standard`` are shared out among them; empty: each pair
    plays all."""
    excused: Mapping[Pair, frozenset[str]] = {}
    """Scenarios by pair that decide nothing here, whatever comes of them; they are not played."""
    workers: Workers | None = None
    """Whom to hire; ``None``: a process is started for each pair."""


class Examiner:
    """Examines pairs of one subject at one level.

    Args:
        level: see :func:`pytest_kvquant.quality.coverage_plan.level`.
    """

    def __init__(self, subject: Examined, level: Level) -> None:
        self.subject, self.level = subject, level
        self._folder = tempfile.TemporaryDirectory(prefix="pytest-kvquant-")
        self._store = Path(self._folder.name)
        self._done: dict[Pair, Examination] = {}
        held = [number for number, heads in enumerate(subject.model.n_head_kv) if heads]
        self._plan = WatchPlan(
            layers=sampled(
                held,
                level.layers,
                subject.seed,
                windowed=subject.model.windowed or (),
                sharing=subject.model.sharing,
            ),
            facts=attention_facts(subject.model, subject.engine.setup),
            seed=subject.seed,
            batch=max(subject.ubatch, 1),
            ubatch=subject.ubatch,
            threads=subject.threads,
            folder=subject.reproducers,
            build=subject.build,
        )
        chosen = all_scenarios(subject.scenario_files) if level.scenarios else []
        self._scenarios = [
            one
            for one in chosen
            if (level.name == "full" or one.level != "full")
            and (not subject.scenarios or one.name in subject.scenarios)
        ]
        self._shared = (
            shared_out([one.name for one in self._scenarios], subject.pairs)
            if level.name == "standard"
            else {}
        )

    def _plays(self, scenario: Scenario, pair: Pair) -> bool:
        shared = self._shared.get(scenario.name)
        return not shared or pair == REFERENCE or pair in shared or bool(scenario.file)

    def take_reference(self, other: Examiner) -> None:
        """Compare with what another examiner of the same subject found of f16."""
        self._store, self._folder = other._store, other._folder
        self._done[REFERENCE] = other.examine(REFERENCE)

    def examine(self, pair: Pair) -> Examination:
        """All findings about a pair, made now if they have not been.

        Never raises a :class:`CellError`: a death is part of what is found.
        """
        if pair not in self._done:
            if pair != REFERENCE:
                self.examine(REFERENCE)
            self._done[pair] = self._examine(pair)
        return self._done[pair]

    def forget(self, pair: Pair) -> None:
        """Examine a pair again when it is asked for the next time."""
        self._done.pop(pair, None)

    def _examine(self, pair: Pair) -> Examination:
        begun = time.perf_counter()
        found = Examination(level=self.level.name, left_out=self.level.left_out)
        bench = Workplace(
            self.subject.engine,
            self.subject.model,
            self.subject.gpu_layers,
            self.subject.workers,
        )
        try:
            ladder = Ladder(bench, self._plan, self.level, self.subject.tokens, self._store)
            found = ladder.sweep(pair, found, self._done.get(REFERENCE))
            if found.problem is None:
                found = self._play_all(bench, pair, found)
        finally:
            bench.close()
        return msgspec.structs.replace(found, seconds=time.perf_counter() - begun)

    def _play_all(self, bench: Workplace, pair: Pair, found: Examination) -> Examination:
        excused = self.subject.excused.get(pair, frozenset())
        if idle := [one.name for one in self._scenarios if one.name in excused]:
            left = f"{', '.join(idle)} of {pair}: declared to fail on the model of the run"
            found = msgspec.structs.replace(found, left_out=(*found.left_out, left))
        chosen = [
            one for one in self._scenarios if self._plays(one, pair) and one.name not in excused
        ]
        for scenario in chosen:
            found = self._play(bench, pair, scenario, found)
        if others := len(self._scenarios) - len(chosen) - len(idle):
            found = msgspec.structs.replace(found, elsewhere=(others, len(self._scenarios)))
        return found

    def _play(
        self, bench: Workplace, pair: Pair, scenario: Scenario, found: Examination
    ) -> Examination:
        begun = time.perf_counter()
        stage = ScenarioStage(
            bench, pair, self._plan, scenario, self.subject.tokens,
            window=self.subject.model.window, store=self._store,
        )  # fmt: skip
        control = self._done.get(REFERENCE)

        def about() -> OfScenario:
            return OfScenario(scenario, stage.tape.steps, stage.last, found, control)

        if left := stage.tape.left:
            record = about().left(left)
            return msgspec.structs.replace(found, scenarios=(*found.scenarios, record))
        try:
            seen = stage.play()
            limits = ScenarioLimits(
                own_limit(found, control, scenario.name, stage.sizes()), reference_limit(found)
            )
            record = about().judged(seen, limits)
            if may_be_jumps(seen, limits):
                seen = stage.look_again(seen, same_bits=on_cpu(found))
                record = about().judged(seen, limits)
        except CellError as error:
            bench.drop()
            record = about().ended(error)
        else:
            if scenario.known and record.known:  # what is known to be wrong is none of the kernels
                seen = without_known(seen, scenario.known.operation)
            found = with_seen(found, seen, scenario.name)
            if _shifts_restored(stage.tape.steps):
                left_out = dict.fromkeys((*found.left_out, RESTORED))
                found = msgspec.structs.replace(found, left_out=tuple(left_out))
        record = msgspec.structs.replace(record, seconds=time.perf_counter() - begun)
        return msgspec.structs.replace(found, scenarios=(*found.scenarios, record))


def _shifts_restored(steps: Sequence[Step]) -> bool:
    """Whether positions are changed after a state came back."""
    names = [str(step[0]) for step in steps]
    first = next((at for at, name in enumerate(names) if name.startswith("restore")), len(names))
    return bool({"seq_add", "seq_div"} & set(names[first:]))
