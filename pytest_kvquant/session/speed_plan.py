"""What a run times: what was asked for, else the defaults of the profile and the model."""

from __future__ import annotations

import msgspec

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.config.speed_tests import SPEED_TESTS, DeclaredSpeedTest
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.numerics.rounds import RoundRules
from pytest_kvquant.speed.plan import SpeedPlan

RULES = {
    "quick": RoundRules(least=6, most=9, threshold=20),
    "pr": RoundRules(least=6, most=24, threshold=20),
    "nightly": RoundRules(least=9, most=24, threshold=100),
}
DEPTHS = {"quick": (0,), "pr": (0, 8192), "nightly": (0, 8192, 65536)}
"""Depths to time a model at, as far as it was trained for them: else as deep as it was."""

CPU_DEPTH = 4096
"""Deepest in ``pr`` on a CPU, which takes minutes to fill twice as much: a kernel that is slower
beyond 2,048 tokens shows."""

STEP = 512
"""The deepest depth of a model that was trained for less is a multiple of it."""


EMBEDDED_SAMPLE = 0.008
"""Seconds. The embedded model is for a first look within a minute: brief samples, of an empty cache
in any profile. On a CPU its attention is a small part of that, so that every pair keeps up with
f16."""

SAMPLE = 0.5
"""Seconds, on a CPU: its clock and its neighbours change within less."""

DEVICE_SAMPLE = 0.01
"""Seconds, on other devices: a GPU keeps its pace within 1 %, and half a second of a small model's
prefill would be 200 tests. A large model's test takes longer anyway."""


def usual_tokens(test: DeclaredSpeedTest, *, embedded: bool, on_cpu: bool) -> int:
    """Tokens of a test where nothing was asked for."""
    if embedded:
        return test.embedded
    return test.on_cpu if on_cpu and test.on_cpu is not None else test.tokens


def left_out(settings: Settings, plan: SpeedPlan) -> str:
    """Depths of the profile that the model is too short for, in words."""
    if settings.depths is not None or settings.model is None or settings.speed == "off":
        return ""
    return ", ".join(f"{depth:,}" for depth in DEPTHS[settings.profile] if depth not in plan.depths)


def make_plan(settings: Settings, context_trained: int, *, on_cpu: bool = False) -> SpeedPlan:
    """What a run times: what was asked for, else the defaults of the profile and the model.

    Args:
        on_cpu: whether no other device computes.

    Raises:
        SettingsError: no test is left, or depths are not ascending.
    """
    embedded = settings.model is None
    tokens = {
        one.name: usual_tokens(one, embedded=embedded, on_cpu=on_cpu) if asked is None else asked
        for one in SPEED_TESTS
        for asked in (settings.tokens_of(one.name),)
    }
    if not any(tokens.values()):
        given = " and ".join(f"--kv-{name} 0" for name in tokens)
        raise SettingsError(f"{given} leave no speed test; use --kv-speed off.")
    depths = settings.depths
    if depths is None:
        depths = (0,) if embedded else DEPTHS[settings.profile]
        room = context_trained - max(tokens.values()) if context_trained else max(depths)
        if on_cpu and settings.profile == "pr":
            room = min(room, CPU_DEPTH)
        fitting = max(0, room // STEP * STEP)
        depths = tuple(dict.fromkeys(min(depth, fitting) for depth in depths))
    if list(depths) != sorted(set(depths)):
        listed = ",".join(map(str, depths))
        raise SettingsError(f"--kv-depths {listed} must ascend: a cache is only ever extended.")
    rules = RULES[settings.profile]
    if settings.rounds is not None:
        if settings.rounds < rules.least:
            raise SettingsError(
                f"--kv-rounds {settings.rounds}: fewer than {rules.least} rounds cannot decide in "
                f"the {settings.profile} profile."
            )
        rules = msgspec.structs.replace(rules, most=settings.rounds)
    return SpeedPlan(
        depths=depths,
        tokens=tokens,
        seconds=settings.sample
        or (EMBEDDED_SAMPLE if embedded else SAMPLE if on_cpu else DEVICE_SAMPLE),
        rules=rules,
        confirm=settings.profile != "nightly",
    )
