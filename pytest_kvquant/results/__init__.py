"""The record model: what a run measured, as it is kept. Nothing is computed here."""
