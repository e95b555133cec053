"""A verdict becomes a pass, a failure or a skip of a test, and its words."""
