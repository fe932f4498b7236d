"""The page of one participant and its figures."""
