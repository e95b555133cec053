"""What a Mac says of itself: parsers of its own tools' texts, and the calls that get them."""
