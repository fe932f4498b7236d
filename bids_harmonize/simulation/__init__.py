"""Scans made from label maps by the MR signal equations."""
