"""One figure of one method: what a tier returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure of a method.

    Attributes
    ----------
    value, spread
        Mean and standard deviation over `n` measurements, unless the tier states otherwise.
    better
        Which way is better; "neither" where a figure only guards another, or counts something.
    scans_used
        How many scans went into it.
    """

    tier: str
    modality: str
    figure: str
    method: str
    value: float
    spread: float
    n: int
    better: Better
    scans_used: int


def summarize(
    tier: str, modality: str, figure: str, method: str, values: Iterable[float], *, better: Better, scans: int
) -> Row:
    """Mean and standard deviation of measurements; values that are no number are left out."""
    numbers = np.array([value for value in values if not np.isnan(value)], dtype=float)
    finite = numbers[np.isfinite(numbers)]
    return Row(
        tier=tier,
        modality=modality,
        figure=figure,
        method=method,
        value=float(numbers.mean()) if numbers.size else float("nan"),
        spread=float(finite.std(ddof=1)) if finite.size > 1 else 0.0,
        n=int(numbers.size),
        better=better,
        scans_used=scans,
    )
