"""A run: prepare, measure, judge, record. Owns every lifetime."""
