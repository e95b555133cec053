"""Nothing: the fixtures of the project's own tests are in tests/conftest.py.

This file marks the repository's root for pytest, which puts it on the import path.
"""
