"""Quality of every K/V pair against f16, one budget a test."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import tests_of

globals().update(tests_of("quality"))
