"""Variables of ``[environment]`` that nothing of the build reads: a typing error, as a rule.

A build names what it reads, so the name stands in one of its files. Variables of other prefixes
are those of the system, a driver or a framework, and nobody's to judge.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from pytest_kvquant.config.complaints import nearest
from pytest_kvquant.results.library import Library

OF_A_BUILD = ("LLAMA_", "GGML_", "TURBO_")
"""Prefixes that llama.cpp's own variables have, and its forks'."""

_NAME = re.compile(rb"(?<![A-Z0-9_])(?:LLAMA|GGML|TURBO)_[A-Z0-9_]+")


def unread(variables: Mapping[str, str], library: Library) -> list[str]:
    """A sentence for each variable that no library of a build has the name of."""
    asked = [name for name in variables if name.startswith(OF_A_BUILD)]
    folder = Path(library.path).resolve().parent
    known = names_in(folder / name for name in library.files) if asked else set()
    if not known:
        return []
    return [
        f"[environment] {name}: nothing of this build reads it{nearest(name, sorted(known))}"
        for name in asked
        if name not in known
    ]


def names_in(files: Iterable[Path]) -> set[str]:
    """Names of variables, and of whatever looks like one, that stand in files."""
    found: set[str] = set()
    for path in files:
        with (
            suppress(OSError, ValueError),
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            found |= {name.decode() for name in _NAME.findall(content)}
    return found
