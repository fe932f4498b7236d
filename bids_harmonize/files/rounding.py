"""Numbers as they are stored in JSON files: rounded to the digits that a measurement has."""

from __future__ import annotations


def round_significant(value: float, digits: int) -> float:
    """Round to a number of significant digits; what is not finite stays as it is."""
    return float(f"{value:.{digits}g}")
