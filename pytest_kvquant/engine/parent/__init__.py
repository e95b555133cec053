"""The parent's side of a worker: start it, ask it, turn its death into a verdict."""
