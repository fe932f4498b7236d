"""The page of all scans of one suffix."""
