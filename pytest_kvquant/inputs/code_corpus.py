"""Code to evaluate on: the standard library of the running Python. No text is shipped with it."""

from __future__ import annotations

import platform
import sysconfig
from pathlib import Path

from pytest_kvquant.errors import CorpusError

LEAST = 2_000_000
"""Bytes that are read at least, where there are as many: the same for runs of usual sizes, so that
they draw the same chunks."""

_HEADER = "\n# ---- {name} ----\n"


def standard_library(size: int) -> tuple[str, str]:
    """The modules of the standard library in the order of their names, as one text.

    Args:
        size: bytes that are needed; :data:`LEAST` at least.

    Returns:
        A name with Python's version, and the text.

    Raises:
        CorpusError: this Python has no sources.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    parts: list[str] = []
    length = 0
    for path in sorted(folder.glob("*.py")) + sorted(folder.glob("[a-z]*/*.py")):
        if "packages" in path.parent.name or path.name.startswith("test"):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        parts.append(_HEADER.format(name=path.relative_to(folder)) + text)
        length += len(text)
        if length >= max(size, LEAST):
            break
    if not parts:
        raise CorpusError(
            f"The corpus 'code' is the standard library of Python, and {folder} has no sources; "
            "give source files of your own with --kv-corpus PATH."
        )
    return f"code (Python {platform.python_version()})", "".join(parts)
