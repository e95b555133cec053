"""Gates and checks that other packages add (entry points of the group ``kvquant.checks``)."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import declared_elsewhere

globals().update(
    declared_elsewhere("identity", "cache", "quality", "paths", "memory", "workloads", "kernels")
)
