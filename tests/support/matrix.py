"""Results of any size, made from one real cell: its figures scaled by the types of the pair."""

from __future__ import annotations

import msgspec

from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.recall import RecallPoint
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.speed import SpeedCell, SpeedTest
from pytest_kvquant.results.texts import Robustness, TextFigures

TYPES = ("f16", "q8_0", "q5_1", "q4_0", "turbo4", "turbo3", "turbo2")
DEPTHS = (0, 8192, 32768, 65536, 131072)
DISTANCES = (256, 512, 1024, 2048, 4096)


def enlarge(result: Result, *, types: tuple[str, ...] = TYPES, depths: int = 0) -> Result:
    """The result with all pairs of these types instead, every one passing; timed at depths.

    Each has two further texts, one disturbance, and recall at :data:`DISTANCES`.
    """
    real = next(cell for cell in result.cells if cell.pair == "q8_0/q4_0")
    cells = [
        _scaled(real, f"{k}/{v}", 0.02 * 3.0 ** types.index(k) * 2.0 ** types.index(v))
        for k in types
        for v in types
    ]
    speed = tuple(
        SpeedCell(pair=cell.pair, tests=tuple(_tests(cell.pair, at, depths)))
        for at, cell in enumerate(cells)
        if depths
    )
    return msgspec.structs.replace(result, cells=tuple(cells), speed=speed)


def _scaled(real: Cell, pair: str, factor: float) -> Cell:
    assert real.quality is not None
    assert real.profile is not None
    assert real.census is not None
    figures = real.quality.prefill
    replace = msgspec.structs.replace
    return replace(
        real,
        pair=pair,
        verdict="pass",
        gates=tuple(replace(gate, verdict="pass") for gate in real.gates),
        census=replace(
            real.census,
            bytes_per_token=max(900.0, 4096 / (1 + factor**0.25)),
            compression_expected=1 + factor**0.25,
        ),
        quality=replace(
            real.quality,
            prefill=replace(figures, kl_mean=figures.kl_mean * factor, top1=1 / (1 + factor / 10)),
        ),
        per_chunk={**real.per_chunk, "kl": tuple(x * factor for x in real.per_chunk["kl"])},
        profile=replace(real.profile, positions=tuple(x * factor for x in real.profile.positions)),
        recall=tuple(recalled(distance, 1 / (1 + factor / 2e3)) for distance in DISTANCES),
        texts=tuple(
            TextFigures(
                corpus=name,
                verdict="pass",
                quality=replace(figures, kl_mean=figures.kl_mean * factor * at),
            )
            for name, at in (("code", 1.5), ("chat", 0.7))
        ),
        robustness=(
            Robustness(
                disturbance="typing errors", chunks=8, clean=0.01, disturbed=0.011, ratio=1.1,
                low=1.0, high=1.2, verdict="pass",
            ),
        ),
    )  # fmt: skip


def recalled(distance: int, kept: float | None, verdict: str = "pass") -> RecallPoint:
    """Recall at a distance."""
    return RecallPoint(
        distance=distance, passages=8, reference=1.5, gain=1.5 * (kept or 0.0), hits_reference=0.9,
        hits=0.8, kept=kept, low=kept, high=kept, verdict=verdict,  # type: ignore[arg-type]
    )  # fmt: skip


def _tests(pair: str, number: int, depths: int) -> list[SpeedTest]:
    k, v = pair.split("/")
    found = []
    for depth in DEPTHS[:depths]:
        for n_prompt, n_gen, speed in ((512, 0, 600.0), (0, 128, 60.0)):
            ratio = (0.7 + 0.01 * (number % 40)) if v != "turbo2" or k == "turbo2" else 0.02
            samples = tuple(speed * ratio / (1 + depth / 1e5) * (1 + n / 500) for n in range(18))
            nanoseconds = tuple(round(1e9 * (n_prompt + n_gen) / sample) for sample in samples)
            found.append(
                SpeedTest(
                    build_commit="0", cpu_info="CPU", gpu_info="", backends="CPU",
                    model_filename="m", model_type="m", model_size=1, model_n_params=1,
                    n_batch=2048, n_ubatch=512, n_threads=2, type_k=k, type_v=v, n_gpu_layers=-1,
                    flash_attn=True, n_prompt=n_prompt, n_gen=n_gen, n_depth=depth,
                    test_time="2026-11-23T00:00:00Z", avg_ns=nanoseconds[0], stddev_ns=1,
                    avg_ts=samples[0], stddev_ts=1.0, samples_ns=nanoseconds, samples_ts=samples,
                    reference_ns=nanoseconds, repeats=(1, 1), ratios=(ratio,) * 9, ratio=ratio,
                    floor=0.5, e_below=0.1, e_above=20.0, verdict="pass", text="passes",
                )
            )  # fmt: skip
    return found
