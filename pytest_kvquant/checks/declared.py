"""A check beside what ``[expect]`` declares of it: a known fault passes, a gone one fails."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from pytest_kvquant.results.cell import Check


def as_declared(found: Check, declared: Collection[str]) -> Check:
    """The check in the light of what is declared to fail.

    Args:
        declared: names of checks; names with a dot are of operations, which the check of
            operations weighs itself.
    """
    if found.name not in declared or found.verdict == "inconclusive":
        return found
    if found.verdict == "fail":
        text = f"fails, as [expect] says: {found.text}"
        return msgspec.structs.replace(found, verdict="pass", text=text)
    text = (
        f"[expect] declares that {found.name} fails, and it does not any more ({found.text}); "
        "remove that line"
    )
    return msgspec.structs.replace(found, verdict="fail", text=text)
