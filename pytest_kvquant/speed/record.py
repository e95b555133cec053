"""A series and what it showed, as the result keeps it: samples under ``llama-bench``'s names."""

from __future__ import annotations

import datetime
import statistics

from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics import rounds
from pytest_kvquant.numerics.rounds import Decision, RoundRules, Steadiness
from pytest_kvquant.results.speed import SpeedTest
from pytest_kvquant.speed.series import RoundSeries, SpeedFinding
from pytest_kvquant.speed.streams import Account, Bed

ALL_ROUNDS = RoundRules(least=1, most=1, threshold=1e300)
"""Decides nothing: the evidence of all rounds."""


def record(
    series: RoundSeries,
    finding: SpeedFinding,
    confirmed: bool | None,
    pair: Pair,
    bed: Bed,
    account: Account,
) -> SpeedTest:
    """One test of the result.

    Args:
        confirmed: whether a fresh process found the same; ``None`` where none was asked.
    """
    ns, count = series.cell_ns, series.tokens
    speeds = [1e9 * count / one for one in ns]
    floor = bed.floors(pair, series.depth).ratio(series.kind)
    evidence, steady = Decision("inconclusive", 1.0, 1.0, 0), Steadiness(0.0, 0.0)
    if series.rounds:
        evidence = rounds.decide(series.log_ratios, floor, ALL_ROUNDS)
        steady = rounds.steadiness(series.reference_ns)
    stored = bed.stored.find(pair, series.kind, count, series.depth)
    described = account.description
    return SpeedTest(
        build_commit=bed.library.ggml_commit or "",
        cpu_info=bed.library.processors,
        gpu_info=", ".join(device.description for device in bed.library.gpus),
        backends=bed.library.accelerators,
        model_filename=bed.model.path,
        model_type=str(described["model_type"]),
        model_size=int(described["model_size"]),
        model_n_params=int(described["model_n_params"]),
        n_batch=bed.batch,
        n_ubatch=bed.ubatch,
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
        ratio=series.ratio,
        floor=floor,
        e_below=evidence.e_below,
        e_above=evidence.e_above,
        verdict=finding.verdict,
        text=finding.text,
        declared=finding.verdict == "cliff" and bed.declared(pair, series.kind, series.depth),
        confirmed=confirmed,
        drop=steady.drop,
        spread=steady.spread,
        stored_ts=stored.cell if stored else None,
    )
