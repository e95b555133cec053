"""The console script ``kvquant``: one file a command."""
