"""One file a gate or check: what it needs, how it decides, its words."""
