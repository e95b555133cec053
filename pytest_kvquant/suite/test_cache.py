"""What every cache stores, against the reference quantizer of its type."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import declared_tests

globals().update(declared_tests("cache"))
