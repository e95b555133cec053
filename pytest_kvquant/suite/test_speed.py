"""Speed of every K/V pair over that of f16, at every depth."""

from __future__ import annotations

from pytest_kvquant.outcomes.speed import speed_tests

globals().update(speed_tests())
