"""The simulated Metal backend, and what a run makes of it."""
