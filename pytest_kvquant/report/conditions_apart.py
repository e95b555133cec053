"""Under which conditions two results were measured, and which of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile

from pytest_kvquant.errors import ResultError
from pytest_kvquant.results.result import Result

Fact = tuple[str, object, object]
"""Its name, then, now."""


def require_same_tokens(before: Result, after: Result) -> None:
    """Figures of other tokens or another model say nothing.

    Raises:
        ResultError: names what differs.
    """
    facts = [
        ("model", before.model.fingerprint, after.model.fingerprint),
        ("corpus", before.corpus.fingerprint, after.corpus.fingerprint),
        ("tokens per chunk", before.settings.ctx, after.settings.ctx),
        ("scored tokens per chunk", before.settings.scored, after.settings.scored),
    ]
    found = [f"{what}: {old} → {new}" for what, old, new in facts if old != new]
    if found:
        raise ResultError(
            f"These results cannot be compared, for these conditions differ: {'; '.join(found)}. "
            "Figures are comparable on the same tokens of the same model only."
        )


def shared_chunks(before: Result, after: Result) -> int:
    """How many chunks, from the first, are the same text in both."""
    pairs = zip(before.corpus.chunks, after.corpus.chunks, strict=False)
    shared = len(list(takewhile(lambda both: both[0] == both[1], pairs)))
    if not shared:
        raise ResultError(
            "These results cannot be compared: they drew other chunks of the corpus "
            f"(seed {before.settings.seed} and {after.settings.seed})."
        )
    return shared


def builds(before: Result, after: Result) -> list[Fact]:
    """What is compared, or may be."""
    old, new = before.environment.library, after.environment.library
    return [("build", f"{old.build}, files {old.hash}", f"{new.build}, files {new.hash}")]


def conditions(before: Result, after: Result) -> list[Fact]:
    """What moves figures or speeds by itself."""
    old, new = before.environment, after.environment
    names = ("batch", "ubatch", "sequences", "threads", "gpu_layers")
    return [
        ("device", old.library.computing, new.library.computing),
        ("processor", old.cpu, new.cpu),
        ("variables", _variables(old.variables_set), _variables(new.variables_set)),
        (
            "options of llama.cpp",
            _variables(before.settings.setup),
            _variables(after.settings.setup),
        ),
        ("compared with", before.reference.subject, after.reference.subject),
        *((name, getattr(before.settings, name), getattr(after.settings, name)) for name in names),
    ]


def _variables(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(found.items())) or "none"


def differences(facts: Iterable[Fact]) -> Iterator[str]:
    """Those that differ, in words."""
    for what, was, now in facts:
        if was != now:
            yield f"{what}: {was} → {now}"
