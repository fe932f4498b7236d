"""What the outputs say when they are read again, and what they say together."""
