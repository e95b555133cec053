"""One result model; terminal and JSON are views of it."""
