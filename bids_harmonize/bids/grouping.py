"""Scans in groups, such as sites and pools, and how that was found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which group each scan is of.

    Attributes
    ----------
    labels
        The group of each scan; None where it is not known, or in none.
    rule
        A phrase that says how the groups were found.
    remarks
        Sentences about what was wrong or missing.
    """

    labels: tuple[str | None, ...]
    rule: str
    remarks: tuple[str, ...] = ()
