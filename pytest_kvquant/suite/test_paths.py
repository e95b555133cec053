"""What the batched figures do not touch: one token at a time, batch shapes, save and restore."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import declared_tests

globals().update(declared_tests("paths"))
