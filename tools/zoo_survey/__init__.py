"""Every architecture that the installed library knows, measured on tiny random weights."""
