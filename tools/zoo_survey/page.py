"""The survey's table: docs/zoo-survey.json keeps its rows, docs/zoo-survey.md shows them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tools.kept_rows import read_rows, write_rows
from tools.zoo_survey.measure import Finding, Status

DOCS: Final = Path(__file__).parents[2] / "docs"
KEPT, PAGE = DOCS / "zoo-survey.json", DOCS / "zoo-survey.md"
HEAD: Final = "| architecture | pairs | what is said |\n|---|---|---|\n"
BEST: Final[tuple[Status, ...]] = ("measured", "unsupported", "refused", "library")
"""What an architecture counts as: the first that one of its pairs is, unless a fault is ours."""
FOLDERS: Final = re.compile(r"(?<![\w.])/[\w.+-]+(?:/[\w.+-]+)*/")
"""In front of a file's name: they are of the machine that built or measured."""
MOST: Final = 160


class SurveyRow(msgspec.Struct, frozen=True):
    """What came of one architecture on one build."""

    build: str
    architecture: str
    status: Status
    pairs: str
    """How many pairs are what."""
    said: str


def row(build: str, architecture: str, findings: Mapping[str, Finding]) -> SurveyRow:
    """All findings of an architecture."""
    counted = Counter(finding.status for finding in findings.values())
    texts = dict.fromkeys(finding.text for finding in findings.values() if finding.text)
    return SurveyRow(
        build=build,
        architecture=architecture,
        status="ours" if counted["ours"] else next(one for one in BEST if counted[one]),
        pairs=", ".join(f"{number} {status}" for status, number in counted.most_common()),
        said=" · ".join(_plain(text) for text in texts),
    )


def _plain(text: str) -> str:
    shown = FOLDERS.sub("", text.replace("\n", " ").replace("|", "/"))
    return re.sub(r"([<>*_`\[\]$])", r"\\\1", shown[:MOST])


def line(one: SurveyRow) -> str:
    """A line of the table."""
    return f"| {one.architecture} | {one.pairs} | {one.said} |\n"


def total(rows: Sequence[SurveyRow]) -> str:
    """How many architectures are what."""
    counted = Counter(one.status for one in rows)
    whole = ", ".join(f"{number} {status}" for status, number in counted.most_common())
    return f"Architectures: {len(rows)}, {whole}; our fault: {counted['ours']}."


def read() -> list[SurveyRow]:
    """What was kept earlier."""
    return read_rows(KEPT, SurveyRow)


def keep(rows: Sequence[SurveyRow]) -> None:
    """Write both files; rows of the same build and architecture are replaced."""
    found = {(one.build, one.architecture): one for one in (*read(), *rows)}
    ordered = [found[key] for key in sorted(found)]
    write_rows(KEPT, ordered)
    PAGE.write_text(text(ordered), encoding="utf-8")


def text(rows: Sequence[SurveyRow]) -> str:
    """The page in markdown."""
    said = (
        "# Every architecture: the survey\n\n`python -m tools.zoo_survey --keep` writes this page: "
        "each architecture that a build knows, with random weights, through the whole run. "
        "*Measured*, maybe with a note; *unsupported* by the library, in its words; *library*: it "
        "crashes, or computes no numbers; *refused* by this project in one line; *ours*: a false "
        "alarm or an error.\n"
    )
    for build in sorted({one.build for one in rows}, reverse=True):
        own = [one for one in rows if one.build == build]
        said += f"\n## {build}\n\n{total(own)}\n\n{HEAD}{''.join(map(line, own))}"
    return said
