"""The page's colours, by computation: told apart with every kind of colour blindness, readable."""

from __future__ import annotations

import itertools
import re

import pytest
from support.colour import VISIONS, contrast, distance, seen

from pytest_kvquant.report.html import TEMPLATES

CSS = (TEMPLATES / "page.css").read_text(encoding="utf-8")
COLOURS = {
    name: dict(zip(("light", "dark"), both, strict=True))
    for name, *both in re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", CSS)
}
SERIES = [name for name in COLOURS if name.startswith("series-")]
TONES = ["good", "open", "bad"]
APART = 10.0
"""CIEDE2000 between any two colours that stand for different things: four times what is just
noticeable side by side, enough across a chart."""


def test_the_palette_is_there() -> None:
    assert len(SERIES) == 9
    assert set(TONES) < set(COLOURS)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("names", [SERIES, TONES], ids=["series", "tones"])
def test_colours_are_told_apart(names: list[str], vision: str, theme: str) -> None:
    for one, other in itertools.combinations(names, 2):
        apart = distance(COLOURS[one][theme], COLOURS[other][theme], vision)
        assert apart >= APART, (one, other, apart)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out(theme: str) -> None:
    card = COLOURS["card"][theme]
    for name in ("text", "muted", "accent", *TONES):
        assert contrast(COLOURS[name][theme], card) >= 4.5, name
    for name in TONES:
        assert contrast(COLOURS[name][theme], COLOURS[f"{name}-soft"][theme]) >= 4.5, name
    for name in SERIES:
        assert contrast(COLOURS[name][theme], card) >= 3.0, name


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISIONS)
def test_the_ramp_only_ever_gets_deeper(vision: str, theme: str) -> None:
    steps = [seen(COLOURS[f"ramp-{step}"][theme], vision)[0] for step in range(5)]
    assert steps == sorted(steps, reverse=theme == "light")
    ends = COLOURS["ramp-4"][theme], COLOURS["under-4"][theme]
    assert distance(*ends, vision) >= APART


def test_the_distance_is_the_published_one() -> None:
    # Sharma, Wu and Dalal (2005), table 1, pairs 1, 7, 17 and 25.
    import numpy as np
    from support.colour import ciede2000

    pairs = {
        2.0425: ((50, 2.6772, -79.7751), (50, 0, -82.7485)),
        2.3669: ((50, 0, 0), (50, -1, 2)),
        27.1492: ((50, 2.5, 0), (73, 25, -18)),
        1.2644: ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387)),
    }
    for expected, (one, other) in pairs.items():
        assert ciede2000(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-4)
