"""Kernels of every K/V pair, f16 among them, against exact arithmetic on live graphs."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import declared_tests

globals().update(declared_tests("kernels"))
