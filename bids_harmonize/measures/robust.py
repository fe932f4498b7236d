"""Robust statistics."""

from __future__ import annotations

import numpy as np

from bids_harmonize.measures.types import Array

# Makes a median absolute deviation comparable to a standard deviation.
MAD_TO_SIGMA = 1.4826


def robust_deviations(values: Array, min_spread: float) -> Array:
    """Deviations from the median, in robust standard deviations.

    Hampel 1974, doi:10.1080/01621459.1974.10482962.

    Parameters
    ----------
    values
        ``(n,)``, finite; at least one.
    min_spread
        The standard deviation that is taken where the robust one is smaller, in the unit of the values.
    """
    centred = values - np.median(values)
    return centred / max(MAD_TO_SIGMA * float(np.median(np.abs(centred))), min_spread)
