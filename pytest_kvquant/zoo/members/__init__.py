"""All members, and the handful that stands for them in a pull request."""

from __future__ import annotations

from typing import Final

from pytest_kvquant.zoo.declaration import Member
from pytest_kvquant.zoo.members import alibi, gemma, gpt_oss, hybrid, latent, llama, mimo, phi, qwen

ALL: Final[tuple[Member, ...]] = (
    *llama.MEMBERS,
    *phi.MEMBERS,
    *qwen.MEMBERS,
    *gemma.MEMBERS,
    *gpt_oss.MEMBERS,
    *mimo.MEMBERS,
    *alibi.MEMBERS,
    *latent.MEMBERS,
    *hybrid.MEMBERS,
)

HANDFUL: Final = ("phi2-80", "gemma2-256", "gpt-oss-64", "mimo2-192", "deepseek2-576")
"""Padded heads, softcap, sinks and windows, K wider than V, a cache without V."""


def by_name(name: str) -> Member:
    """The member of that name.

    Raises:
        KeyError: there is none.
    """
    return {member.name: member for member in ALL}[name]
