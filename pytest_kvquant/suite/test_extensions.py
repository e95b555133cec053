"""Gates and checks that other packages add (entry points of the group ``kvquant.checks``)."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import tests_of_others

globals().update(
    tests_of_others("identity", "cache", "quality", "paths", "memory", "workloads", "kernels")
)
