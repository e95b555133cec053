"""How often the gates are wrong: simulated matrices judged by the very rules of a run."""
