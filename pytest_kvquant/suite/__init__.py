"""The tests that ``pytest --kv-matrix`` collects."""
