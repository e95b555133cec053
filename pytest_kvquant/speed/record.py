"""A series and what it showed, as the result keeps it: samples under ``llama-bench``'s names."""

from __future__ import annotations

import datetime
import statistics

from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics import rounds
from pytest_kvquant.numerics.rounds import Decision, RoundRules, Steadiness
from pytest_kvquant.results.speed import LLAMA_BENCH, RoofShare, SpeedTest
from pytest_kvquant.speed.series import RoundSeries, SpeedFinding
from pytest_kvquant.speed.streams import Account, SpeedSetup

ALL_ROUNDS = RoundRules(least=1, most=1, threshold=1e300)
"""Decides nothing: the evidence of all rounds."""


def record(
    series: RoundSeries,
    finding: SpeedFinding,
    confirmed: bool | None,
    pair: Pair,
    setup: SpeedSetup,
    account: Account,
) -> SpeedTest:
    """One test of the result.

    Args:
        confirmed: whether a fresh process found the same; ``None`` where none was asked.
    """
    ns, count = series.cell_ns, series.tokens
    speeds = [1e9 * count / one for one in ns]
    floor = setup.floors(pair, series.depth).ratio(series.kind)
    evidence, steady = Decision("inconclusive", 1.0, 1.0, 0), Steadiness(0.0, 0.0)
    if series.rounds:
        evidence = rounds.decide(series.log_ratios, floor, ALL_ROUNDS)
        steady = rounds.steadiness(series.reference_ns)
    stored = setup.stored.find(pair, series.kind, count, series.depth)
    described, away = account.description, account.off_device or ""
    assert described is not None
    return SpeedTest(
        build_commit=setup.library.ggml_commit or "",
        cpu_info=setup.library.processors,
        gpu_info=", ".join(device.description for device in setup.library.gpus),
        backends=setup.library.accelerators,
        model_filename=setup.model.path,
        model_type=described.model_type,
        model_size=described.model_size,
        model_n_params=described.model_n_params,
        n_batch=setup.batch,
        n_ubatch=setup.ubatch,
        n_threads=setup.threads,
        type_k=pair.k,
        type_v=pair.v,
        n_gpu_layers=setup.gpu_layers,
        # auto is on wherever the library has it, and this build has
        flash_attn=setup.options.get("flash-attn") != "off",
        name="" if series.kind in LLAMA_BENCH else series.kind,
        n_prompt=count if series.kind == "pp" else 0,
        n_gen=count if series.kind != "pp" else 0,
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
        parts=series.parts,
        ratios=tuple(rounds.median_ratio([one]) for one in series.log_ratios),
        ratio=series.ratio,
        floor=floor,
        e_below=evidence.e_below,
        e_above=evidence.e_above,
        verdict=finding.verdict,
        text=f"{finding.text}; {away}" if away and finding.verdict != "pass" else finding.text,
        declared=_is_declared(finding, pair, series, setup, away),
        confirmed=confirmed,
        drop=steady.drop,
        iqr_over_median=steady.spread,
        by_depth=series.by_depth,
        stored_ts=stored.cell if stored else None,
        roof=_roof(series, pair, setup),
    )


def _roof(series: RoundSeries, pair: Pair, setup: SpeedSetup) -> RoofShare | None:
    """How near the median of a series comes to what the machine permits, and that of f16."""
    if setup.roofs is None:
        return None
    test = series.kind, series.tokens, series.depth
    own = setup.roofs.of(pair, *test)
    against = setup.roofs.of(pair if setup.same_pair else REFERENCE, *test)
    if own is None or against is None:
        return None
    stored = setup.stored.find(pair, *test)
    speed = 1e9 * series.tokens / statistics.median(series.cell_ns)
    reference = None
    if series.reference_ns:
        f16 = 1e9 * series.tokens / statistics.median(series.reference_ns)
        reference = f16 / against.speed
    return RoofShare(
        by=own.by,
        rate=own.rate,
        amount=own.amount,
        ts=own.speed,
        share=speed / own.speed,
        reference_share=reference,
        stored_rate=stored.rate if stored else None,
    )


def _is_declared(
    finding: SpeedFinding, pair: Pair, series: RoundSeries, setup: SpeedSetup, away: str
) -> bool:
    """Whether ``[expect]`` says why a series is slow.

    Args:
        away: what of the cell runs on the CPU though a GPU holds its cache; empty: nothing.
    """
    if finding.verdict == "pass":
        return False
    if away and setup.off_device(pair):
        return True
    return finding.verdict == "cliff" and setup.declared(pair, series.kind, series.depth)
