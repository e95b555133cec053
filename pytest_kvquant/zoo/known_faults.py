"""What llama.cpp itself does wrong on members of the zoo: told, and no failure of a build.

Each is a line of its sources; a build that has mended it passes, and nothing has to be removed.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import msgspec

from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.kernels import Examination, ScenarioRecord
from pytest_kvquant.zoo.declaration import Member

PLAIN = ("f32", "f16", "bf16")
ROTATED = 64
"""Head sizes that are a multiple of it are rotated before quantization; a shift takes all for
rotated."""

DEATH = re.compile(r": (crashed|unsupported) in llama_decode\(")
"""How the text of a scenario tells it; a backend may name what it cannot do when it aborts."""

NO_ROTATION = (
    "llama.cpp rotates keys back before it shifts them, also where a head of that size was never "
    "rotated: llama_mul_mat_hadamard reads a matrix that is not there"
)
PARTIAL = (
    "llama.cpp cannot cast a part of each quantized head, as a shift under a partial rope does"
)


def known_faults(member: Member, pair: Pair) -> dict[str, str]:
    """Patterns of scenarios that are known to die on a member, and why."""
    if pair.k in PLAIN or "rope" not in member.features:
        return {}
    if member.head_k % ROTATED:
        return dict.fromkeys(("shift_*", "divide"), NO_ROTATION)
    if {"partial rope", "latent attention"} & set(member.features):
        return dict.fromkeys(("shift_*", "divide"), PARTIAL)
    return {}


def with_known(found: Examination, faults: dict[str, str]) -> Examination:
    """The findings, known faults marked as such where they happened: as a death in
    ``llama_decode``. Wrong figures, and a death anywhere else, are of another kind."""
    marked = tuple(
        msgspec.structs.replace(one, known=why)
        if _died_in_decode(one) and (why := _why(one.name, faults))
        else one
        for one in found.scenarios
    )
    return msgspec.structs.replace(found, scenarios=marked)


def _died_in_decode(one: ScenarioRecord) -> bool:
    return one.broken and DEATH.search(one.text) is not None


def _why(name: str, faults: dict[str, str]) -> str:
    return next((why for pattern, why in faults.items() if fnmatchcase(name, pattern)), "")
