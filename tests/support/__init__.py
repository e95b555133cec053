"""Helpers of the tests: models, stand-ins, golden files."""
