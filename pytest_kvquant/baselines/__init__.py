"""What was accepted earlier: figures, speeds, and the drift from them."""
