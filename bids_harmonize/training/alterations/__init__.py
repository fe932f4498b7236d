"""The alterations of a scan that a network learns to undo."""
