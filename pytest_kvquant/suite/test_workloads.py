"""Other work than the run's own chunks: what was read is found again, on other texts too."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import declared_tests

globals().update(declared_tests("workloads"))
