"""Hardware, memory, devices, environment."""
