"""The page of faults names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.findall(
    r"^\| .+ \| .+ \| `(tests/[\w/]+\.py)::(test_\w+)(?:\[([^\]]+)\])?` \|$",
    (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_it_has_enough_of_them() -> None:
    assert len(ROWS) >= 60


def test_every_one_exists() -> None:
    missing = []
    for path, name, case in ROWS:
        text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).exists() else ""
        if f"def {name}(" not in text or (case and f'"{case}"' not in text):
            missing.append(f"{path}::{name}[{case}]")
    assert not missing
