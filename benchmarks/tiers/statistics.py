"""Reliability of ratings, and the spread of statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

INTERVAL = (2.5, 97.5)


def intraclass_correlation(ratings: Array) -> float:
    """ICC(2,1): how far single ratings of a target agree, whoever of many possible raters gives them.

    Two-way random effects, absolute agreement, single measurement (Shrout & Fleiss 1979,
    doi:10.1037/0033-2909.86.2.420).

    Parameters
    ----------
    ratings
        ``(targets, raters)``, at least two of each.

    Returns
    -------
    float
        At most 1; 0 if all ratings are equal, as such ratings say nothing about the targets; not a number
        if a rating is not a number.
    """
    targets, raters = ratings.shape
    mean = ratings.mean()
    centred = ratings - mean
    by_target, by_rater = centred.mean(axis=1), centred.mean(axis=0)
    residual = centred - by_target[:, None] - by_rater
    between = raters * float(np.sum(by_target**2)) / (targets - 1)
    raters_differ = targets * float(np.sum(by_rater**2)) / (raters - 1)
    error = float(np.sum(residual**2)) / ((targets - 1) * (raters - 1))
    total = between + (raters - 1) * error + raters * (raters_differ - error) / targets
    # Rounding leaves a small total variance in features that are the same everywhere.
    if total <= 1e-20 * mean**2:
        return 0.0
    return (between - error) / total


def coefficient_of_variation(values: Array) -> float:
    """Standard deviation over mean; not a number where the mean is not positive."""
    mean = float(values.mean())
    return float(values.std(ddof=1)) / mean if mean > 0 else float("nan")


def bootstrap_error(values: Array, statistic: Callable[[Array], float]) -> float:
    """Standard error of a statistic, by resampling its values (Efron 1979)."""
    rng = np.random.default_rng(0)
    indices = rng.integers(len(values), size=(500, len(values)))
    return float(np.nanstd([statistic(values[index]) for index in indices]))
