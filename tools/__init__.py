"""Tools of the project's own making; nothing here is installed with the plugin."""
