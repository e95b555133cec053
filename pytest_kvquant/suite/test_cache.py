"""What every cache stores, against the reference quantizer of its type."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import tests_of

globals().update(tests_of("cache"))
