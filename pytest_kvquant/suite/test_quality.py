"""Quality of every K/V pair against f16, one budget a test."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import declared_tests

globals().update(declared_tests("quality"))
