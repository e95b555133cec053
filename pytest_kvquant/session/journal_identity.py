"""What all parts of a journal depend on, in a file beside them; and what of it is not as it was."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pytest_kvquant.session.part import FORMAT

IDENTITY = "identity.json"


class Dependencies(msgspec.Struct, frozen=True, kw_only=True):
    """What the parts of a folder depend on, by name."""

    format: str = FORMAT
    depends: dict[str, str] = {}


def read_identity(folder: Path) -> Dependencies | None:
    """That of a folder; ``None`` where there is none that can be read."""
    try:
        return msgspec.json.decode((folder / IDENTITY).read_bytes(), type=Dependencies)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def changes(before: Dependencies | None, now: Dependencies) -> list[str]:
    """Names of what is not as it was; all of it where nobody knows."""
    if before is None or before.format != FORMAT:
        return ["what they depend on"]
    names = dict.fromkeys([*now.depends, *before.depends])
    return [name for name in names if before.depends.get(name) != now.depends.get(name)]
