"""What the parts of a run should take, before anything of it is known: counted in tokens.

Every part is tokens that are decoded, at one pace that is learnt as soon as one part is done
(:func:`pytest_kvquant.numerics.eta.pace`), and seconds that no model changes. So what matters is
how many tokens a part has beside the others; that was held against runs of the embedded model and
of SmolLM2-135M.
"""

from __future__ import annotations

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.quality import recall
from pytest_kvquant.quality.task import Task
from pytest_kvquant.speed.plan import SpeedPlan

WORKER = 0.2
"""Guessed seconds to start a worker, as a rule a fork, and load a small model."""

LOADING, COMPILING = 0.5, 5.0
"""Guessed seconds in which the first comparison loads the compiled loops, and compiles them where
no earlier run has kept any."""

EXAMINING = {"off": 0.0, "minimal": 0.4, "standard": 0.9, "full": 4.0}
"""Guessed seconds in which the kernels of a pair are examined, by how much of them."""

ENDING = 0.5
"""Guessed seconds from the last test until the process is gone: files are written, workers end."""

SPEED_OF_BYTES = 5e10
"""Guessed tok/s of a prefill times the bytes of the model's weights: on two CPU threads 8e10 of the
embedded model, 5e10 of SmolLM2-135M."""

FEW, LEAST = 4, 8
"""Guessed chunks until f16 beside itself is decided, and until a quantized cell is at least."""

DECIDING = 14 * 512
"""Guessed tokens until a quantized cell is decided: of the demo's fifteen eleven are after 16
chunks of 512, four after 8; shorter chunks take more of them."""

SINGLE = 3
"""Tokens of a prefill that one token alone takes as long as."""

SLOWER = 1.35
"""Time of a prefill on a quantized cache over that of f16."""

ROUNDING = 1.2
"""Time of a prefill in which an f16 worker rounds its rows as a pair would, over that without."""

ONCE_MORE = 1
"""Rounds of a speed test beyond the fewest that decide."""


def guesses(
    settings: Settings, model: Model, task: Task, speed: SpeedPlan, *, compiled: bool
) -> dict[str, tuple[float, float]]:
    """Units and guessed seconds a unit of what one cell takes, and the reference, by phase.

    Only their ratios matter once the first of them is finished.

    Args:
        compiled: whether an earlier run has kept the compiled loops.
    """
    rate, ctx, cap = SPEED_OF_BYTES / max(model.size, 1), task.shape.ctx, task.rules.cap
    start = WORKER + model.size / 2e9
    few = chunks = cap
    if task.rules.early:
        few, chunks = min(FEW, cap), min(max(LEAST, DECIDING // ctx), cap)
    decode = SINGLE * settings.decode + ctx
    others = SINGLE * 4 * settings.trajectory + 2 * ctx
    recalled, first_half = _recall_tokens(settings, ctx)
    examined = EXAMINING[settings.coverage_level] + (0.2 if settings.probe == "always" else 0.0)
    emulated = (chunks * ctx + decode) * ROUNDING if settings.healthy == "on" else 0.0
    own = SLOWER * (chunks * ctx + decode + others + first_half)
    beside = start if settings.healthy == "on" else 0.0
    return {
        "reference": (chunks, ctx / rate),
        "control": (
            1,
            start + (decode + others + 5 * ctx) / rate + (LOADING if compiled else COMPILING),
        ),
        "first": (
            1,
            start + (recalled + few * ctx + decode + others + first_half) / rate + examined,
        ),
        "cell": (1, start + beside + (own + emulated) / rate + examined),
        "speed": (1, _speed_seconds(speed, rate)),
        "ceiling": (1, 8 * start),
        "end": (1, ENDING),
    }


def _recall_tokens(settings: Settings, ctx: int) -> tuple[int, int]:
    """Tokens that f16 reads for recall, and that a pair reads which their first half decides."""
    length = ctx if settings.recall is None else settings.recall
    if length < recall.SHORTEST:
        return 0, 0
    return recall.sequences_of(length) * length, recall.SEQUENCES * length


def _speed_seconds(speed: SpeedPlan, rate: float) -> float:
    """Of one pair, or of f16 beside a group of them: the depths filled, and its samples."""
    weight = {"pp": 1, "tg": SINGLE}
    each = sum(
        max(speed.seconds, weight.get(kind, SINGLE) * speed.count(kind) / rate)
        for kind in speed.kinds
    )
    samples = 2 * (speed.rules.least + ONCE_MORE) * len(speed.depths)
    return samples * each + max(speed.depths, default=0) / rate
