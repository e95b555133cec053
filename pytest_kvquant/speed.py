"""The tok/s protocol: the speed of a pair over that of f16/f16, at depth, decided round by round.

Both contexts live in one process, the cell's made first, and take turns: A B B A. One climb per
process visits the depths in ascending order. Where two caches do not fit into memory, f16, cell
and f16 follow each other in a process each, and the record says so. A fail is confirmed in a
fresh process; a cliff (under half the speed in each of three rounds) is not: the three rounds are
its confirmation, and it ends the climb of its pair.
"""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
import psutil

from pytest_kvquant import geometry
from pytest_kvquant.errors import CellError, CellOutOfMemory
from pytest_kvquant.floors import Floors
from pytest_kvquant.hardware import machine_state
from pytest_kvquant.lanes import Account, Bed, Lanes, Side, lanes, sides
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics import rounds
from pytest_kvquant.numerics.rounds import RoundRules
from pytest_kvquant.report import format
from pytest_kvquant.report.speed import SpeedCell, SpeedTest, SpeedVerdict, title

KINDS = ("pp", "tg")

HEADROOM = 0.9
"""Share of the free memory that caches may take."""

COOL_DOWN = (0.5, 30.0)
"""Seconds to wait before an unsteady series is repeated: as long as it took, within these."""

ABBA = (1, 0, 0, 1)
"""Lane 0 is the cell, lane 1 is f16/f16."""

Round = tuple[int, int, int, int]
"""Nanoseconds of A, B, B, A."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is timed, and when it is enough."""

    depths: tuple[int, ...]
    """Ascending."""
    prompt: int
    """Tokens of the prefill test; 0: none."""
    generate: int
    """Tokens of the decode test; 0: none."""
    seconds: float
    """What a sample should take: the test is repeated until it does."""
    rules: RoundRules
    confirm: bool
    """Whether every fail is repeated in a fresh process; an unsteady one always is."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """``pp`` and ``tg``, as far as they are wanted."""
        return tuple(kind for kind in KINDS if self.count(kind))

    def count(self, kind: str) -> int:
        """Tokens of a test."""
        return self.prompt if kind == "pp" else self.generate

    @property
    def context(self) -> int:
        """Tokens that a cache has to hold."""
        return max(self.depths) + max(self.prompt, self.generate)


class _Finding(NamedTuple):
    """One thing that a series shows, good or bad."""

    rule: Literal["cliff", "fall", "ratio", "stored"]
    verdict: SpeedVerdict
    text: str


class _Series(NamedTuple):
    """The rounds of one test in one process."""

    kind: str
    tokens: int
    depth: int
    rounds: list[Round]
    repeats: tuple[int, int]
    seconds: float
    """Wall time, the warm-up included."""
    before: float | None
    """The ratio at the depth before, if there was one."""

    @property
    def log_ratios(self) -> list[float]:
        return [rounds.log_ratio(*times) for times in self.rounds]

    @property
    def cell_ns(self) -> list[int]:
        return [ns for _, b1, b2, _ in self.rounds for ns in (b1, b2)]

    @property
    def reference_ns(self) -> list[int]:
        return [ns for a1, _, _, a2 in self.rounds for ns in (a1, a2)]


def measure(pair: Pair, plan: Plan, bed: Bed) -> SpeedCell:
    """Time one pair at all depths; whatever kills the worker is a verdict, not an exception."""
    begun = time.perf_counter()
    account, found = Account(), SpeedCell(pair=str(pair))
    tests: list[SpeedTest] = []
    try:
        reason = _too_large(pair, plan, bed)
        if not reason:
            try:
                tests = _interleaved(pair, plan, bed, account)
            except CellOutOfMemory as error:
                reason = str(error)
        if reason:
            found = msgspec.structs.replace(found, method="bracketed", method_reason=reason)
            tests = _bracketed(pair, plan, bed, account)
    except CellError as error:
        found = msgspec.structs.replace(
            found, verdict=error.verdict, message=str(error), log=error.log
        )
    else:
        found = msgspec.structs.replace(found, verdict=worst(tests), stopped=_stop(tests, plan))
    return msgspec.structs.replace(
        found,
        tests=tuple(tests),
        rollback=account.description.get("rollback", ""),
        prefilled={name: tuple(counts) for name, counts in account.prefilled.items()},
        wall=time.perf_counter() - begun,
        library=account.library_seconds,
        remarks=tuple(account.remarks),
        machine=machine_state(),
    )


def _interleaved(pair: Pair, plan: Plan, bed: Bed, account: Account) -> list[SpeedTest]:
    found: list[tuple[_Series, _Finding]] = []
    with lanes(sides(pair, bed), plan.context, bed, account) as worker:
        before: dict[str, float] = {}
        for depth in plan.depths:
            worker.climb(depth)
            at_depth = []
            for kind in plan.kinds:
                series = _take(worker, kind, depth, before.get(kind), pair, plan, bed)
                before[kind] = rounds.median_ratio(series.log_ratios)
                at_depth.append((series, _judge(series, pair, plan, bed)))
            found += at_depth
            if any(finding.verdict == "cliff" for _, finding in at_depth):
                break
    doubtful = [(series, finding) for series, finding in found if _doubtful(series, finding, plan)]
    again = dict(_repeat([series for series, _ in doubtful], pair, plan, bed, account))
    return [
        _record(series, *_confirmed(finding, again.get((series.kind, series.depth))),
                pair, bed, account)
        for series, finding in found
    ]  # fmt: skip


def _take(
    worker: Lanes,
    kind: str,
    depth: int,
    before: float | None,
    pair: Pair,
    plan: Plan,
    bed: Bed,
) -> _Series:
    """Rounds of one test at the depth that the lanes are at, until they decide."""
    begun = time.perf_counter()
    count, floors = plan.count(kind), bed.floors(pair, depth)
    of_cell, of_reference = worker.warm(kind, count, plan.seconds)
    taken: list[Round] = []
    while not _enough(taken, before, floors, kind, plan.rules):
        a1, b1, b2, a2 = worker.samples(kind, count, ABBA)
        taken.append((a1, b1, b2, a2))
    seconds = time.perf_counter() - begun
    return _Series(kind, count, depth, taken, (of_cell, of_reference), seconds, before)


def _enough(
    taken: Sequence[Round], before: float | None, floors: Floors, kind: str, rules: RoundRules
) -> bool:
    log_ratios = [rounds.log_ratio(*times) for times in taken]
    if not taken or rounds.is_cliff(log_ratios) or len(taken) >= rules.most:
        return bool(taken)
    limits = [floors.ratio(kind)]
    if before is not None:
        limits.append(before * (1 - floors.fall))
    return all(
        rounds.decide(log_ratios, limit, rules).verdict != "inconclusive" for limit in limits
    )


def _judge(series: _Series, pair: Pair, plan: Plan, bed: Bed) -> _Finding:
    """The gravest thing that a series shows."""
    floors = bed.floors(pair, series.depth)
    log_ratios = series.log_ratios
    ratio = rounds.median_ratio(log_ratios)
    name = title(series.kind, series.tokens, series.depth)
    against = sides(pair, bed)[1].name
    if rounds.is_cliff(log_ratios):
        return _Finding(
            "cliff",
            "cliff",
            f"{name} runs at {format.factor(ratio)} of the speed of {against}, under half of it in "
            f"{rounds.CLIFF_ROUNDS} rounds of {rounds.CLIFF_ROUNDS}: off the fast path",
        )
    if series.before is not None:
        limit = series.before * (1 - floors.fall)
        if rounds.decide(log_ratios, limit, plan.rules).verdict == "fail":
            return _Finding(
                "fall",
                "cliff",
                f"{name} runs at {format.factor(ratio)} of the speed of {against}, after "
                f"{format.factor(series.before)} at the depth before: a fall by more than "
                f"{floors.fall:.0%}",
            )
    floor = floors.ratio(series.kind)
    decision = rounds.decide(log_ratios, floor, plan.rules)
    text = f"{name} runs at {format.factor(ratio)} of the speed of {against} (floor {floor:g})"
    if decision.verdict == "inconclusive":
        text += f", not decided after {decision.rounds} rounds"
    if decision.verdict == "pass" and (absolute := _absolute(series, pair, bed, floors)):
        return absolute
    return _Finding("ratio", decision.verdict, text)


def _absolute(series: _Series, pair: Pair, bed: Bed, floors: Floors) -> _Finding | None:
    """What the stored speed of this hardware says against a series, if anything."""
    stored = bed.stored.find(pair, series.kind, series.tokens, series.depth)
    if stored is None:
        return None
    cell = [1e9 * series.tokens / ns for ns in series.cell_ns]
    reference = [1e9 * series.tokens / ns for ns in series.reference_ns]
    floor = floors.stored * stored.cell
    verdict = rounds.judge_absolute(
        cell,
        reference,
        floor=floor,
        stored_reference=stored.reference,
        steady=rounds.steadiness(series.reference_ns).steady,
    )
    if verdict == "pass":
        return None
    name = title(series.kind, series.tokens, series.depth)
    text = (
        f"{name} reaches {max(cell):.1f} tok/s at best, under {floors.stored:g} of the "
        f"{stored.cell:.1f} tok/s stored for this hardware"
    )
    if verdict == "inconclusive":
        text += (
            f" (machine): f16/f16 reaches {max(reference):.1f} of its stored "
            f"{stored.reference:.1f} tok/s, so it is the machine that is slow or unsteady"
        )
    return _Finding("stored", verdict, text)


def _doubtful(series: _Series, finding: _Finding, plan: Plan) -> bool:
    """Whether a fresh process is asked before this is believed."""
    if finding.rule == "cliff" or finding.verdict not in ("fail", "cliff"):
        return False
    unsteady = not rounds.steadiness(series.reference_ns).steady
    return plan.confirm or finding.rule == "stored" or unsteady


def _repeat(
    doubtful: Sequence[_Series], pair: Pair, plan: Plan, bed: Bed, account: Account
) -> Iterator[tuple[tuple[str, int], _Finding]]:
    """The same tests in one fresh process, and what they show there."""
    if not doubtful:
        return
    if any(not rounds.steadiness(series.reference_ns).steady for series in doubtful):
        least, most = COOL_DOWN
        time.sleep(min(most, max(least, sum(series.seconds for series in doubtful))))
    with lanes(sides(pair, bed), plan.context, bed, account) as worker:
        for series in doubtful:
            worker.climb(series.depth)
            again = _take(worker, series.kind, series.depth, series.before, pair, plan, bed)
            yield (series.kind, series.depth), _judge(again, pair, plan, bed)


def _confirmed(finding: _Finding, again: _Finding | None) -> tuple[_Finding, bool | None]:
    if again is None:
        return finding, None
    if again.verdict in ("fail", "cliff"):
        return finding, True
    return finding._replace(
        verdict="inconclusive", text=f"{finding.text}; a fresh process did not find the same"
    ), False


def _bracketed(pair: Pair, plan: Plan, bed: Bed, account: Account) -> list[SpeedTest]:
    """f16, the cell, f16: a process each, as many samples as a deciding series needs at least."""
    size = plan.rules.least
    own, reference = sides(pair, bed)
    first = _climb_alone(reference, plan, plan.depths, size, bed, account)
    cell = _climb_alone(own, plan, plan.depths, 2 * size, bed, account, beside=first)
    visited = sorted({depth for _, depth in cell})
    second = _climb_alone(reference, plan, visited, size, bed, account)
    tests: list[SpeedTest] = []
    before: dict[str, float] = {}
    for (kind, depth), taken in cell.items():
        a, b = (first[kind, depth], second[kind, depth]), taken
        pairs = [
            (a[0].ns[at], b.ns[2 * at], b.ns[2 * at + 1], a[1].ns[at])
            for at in range(len(b.ns) // 2)
        ]
        series = _Series(
            kind, plan.count(kind), depth, pairs, (b.repeats, a[0].repeats), b.seconds,
            before.get(kind),
        )  # fmt: skip
        before[kind] = rounds.median_ratio(series.log_ratios)
        finding = _judge(series, pair, plan, bed)
        if finding.rule != "cliff" and not rounds.steadiness(series.reference_ns).steady:
            finding = finding._replace(
                verdict="inconclusive",
                text=f"{finding.text}; f16/f16 before and after differ too much to tell",
            )
        tests.append(_record(series, finding, None, pair, bed, account))
    return tests


class _Alone(NamedTuple):
    """Samples of one context alone in its process."""

    ns: list[int]
    repeats: int
    seconds: float


def _climb_alone(
    side: Side,
    plan: Plan,
    depths: Iterable[int],
    size: int,
    bed: Bed,
    account: Account,
    *,
    beside: dict[tuple[str, int], _Alone] | None = None,
) -> dict[tuple[str, int], _Alone]:
    """Samples at each depth; ends early where all of them take twice as long as ``beside``'s."""
    taken: dict[tuple[str, int], _Alone] = {}
    with lanes((side,), plan.context, bed, account) as worker:
        for depth in depths:
            worker.climb(depth)
            cliff = False
            for kind in plan.kinds:
                begun = time.perf_counter()
                (repeats,) = worker.warm(kind, plan.count(kind), plan.seconds)
                known = beside[kind, depth].ns if beside else []
                wanted, ns = size, list[int]()
                while len(ns) < wanted:
                    ns += worker.samples(kind, plan.count(kind), (0, 0))
                    if known and len(ns) == 2 * rounds.CLIFF_ROUNDS and min(ns) > 2 * max(known):
                        wanted, cliff = len(ns), True
                taken[kind, depth] = _Alone(ns, repeats, time.perf_counter() - begun)
            if cliff:
                break
    return taken


def _too_large(pair: Pair, plan: Plan, bed: Bed) -> str:
    """Why both contexts cannot be alive together; empty where they can.

    Raises:
        CellOutOfMemory: one of them alone does not fit.
    """
    types = msgspec.to_builtins(bed.library.types)
    need = [
        geometry.expect(bed.model, side.pair, types).bytes_per_token * plan.context
        for side in sides(pair, bed)
    ]
    room = free_memory(bed)
    if max(need) > room:
        raise CellOutOfMemory(
            f"A cache of {plan.context:,} tokens needs {format.size(max(need))}, "
            f"{format.size(room)} may be used; leave out the deepest of --kv-depths."
        )
    if sum(need) > room:
        return (
            f"two caches of {plan.context:,} tokens need {format.size(sum(need))}, "
            f"{format.size(room)} may be used"
        )
    return ""


def free_memory(bed: Bed) -> int:
    """Bytes that caches may take: the limit, else what the computing device has free."""
    if bed.memory_limit is not None:
        return bed.memory_limit
    gpus = [device for device in bed.library.devices if device.gpu]
    if gpus and bed.gpu_layers != 0:
        return int(HEADROOM * sum(device.free for device in gpus))
    return int(HEADROOM * psutil.virtual_memory().available)


def _record(
    series: _Series,
    finding: _Finding,
    confirmed: bool | None,
    pair: Pair,
    bed: Bed,
    account: Account,
) -> SpeedTest:
    ns, count = series.cell_ns, series.tokens
    speeds = [1e9 * count / one for one in ns]
    floor = bed.floors(pair, series.depth).ratio(series.kind)
    evidence = rounds.decide(series.log_ratios, floor, RoundRules(least=1, most=1, threshold=1e300))
    steady = rounds.steadiness(series.reference_ns)
    stored = bed.stored.find(pair, series.kind, count, series.depth)
    gpus = [device for device in bed.library.devices if device.gpu]
    described = account.description
    return SpeedTest(
        build_commit=bed.library.ggml_commit or "",
        cpu_info=bed.cpu,
        gpu_info=", ".join(device.description for device in gpus),
        backends=",".join(dict.fromkeys(device.name for device in gpus)) or "CPU",
        model_filename=bed.model.path,
        model_type=str(described["model_type"]),
        model_size=int(described["model_size"]),
        model_n_params=int(described["model_n_params"]),
        n_batch=int(described["n_batch"]),
        n_ubatch=int(described["n_ubatch"]),
        n_threads=bed.threads,
        type_k=pair.k,
        type_v=pair.v,
        n_gpu_layers=bed.gpu_layers,
        flash_attn=True,
        n_prompt=count if series.kind == "pp" else 0,
        n_gen=count if series.kind == "tg" else 0,
        n_depth=series.depth,
        test_time=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        avg_ns=round(statistics.fmean(ns)),
        stddev_ns=round(statistics.stdev(ns)),
        avg_ts=statistics.fmean(speeds),
        stddev_ts=statistics.stdev(speeds),
        samples_ns=tuple(ns),
        samples_ts=tuple(speeds),
        reference_ns=tuple(series.reference_ns),
        repeats=series.repeats,
        ratios=tuple(rounds.median_ratio([one]) for one in series.log_ratios),
        ratio=rounds.median_ratio(series.log_ratios),
        floor=floor,
        e_below=evidence.e_below,
        e_above=evidence.e_above,
        verdict=finding.verdict,
        text=finding.text,
        confirmed=confirmed,
        drop=steady.drop,
        spread=steady.spread,
        stored_ts=stored.cell if stored else None,
    )


def worst(tests: Iterable[SpeedTest]) -> str:
    """The gravest verdict of the tests of a pair."""
    verdicts = {test.verdict for test in tests}
    return next(
        (one for one in ("cliff", "fail", "inconclusive") if one in verdicts),
        "pass",
    )


def _stop(tests: Sequence[SpeedTest], plan: Plan) -> str:
    """Why the depth table is not complete; empty where it is."""
    reached = max((test.n_depth for test in tests), default=0)
    left = [depth for depth in plan.depths if depth > reached]
    if not left:
        return ""
    return f"a cliff at depth {reached:,} ended the climb; not visited: " + ", ".join(
        f"{depth:,}" for depth in left
    )
