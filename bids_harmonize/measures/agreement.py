"""How well two images of the same anatomy agree."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Above this agreement (dB), rounding is the only difference.
UNCHANGED = 60.0


def agreement_db(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Agreement of two sets of corresponding voxels in dB, a peak signal-to-noise ratio.

    10 log10(1 / mean(((a - b) / r)^2)), where r is the 1 to 99 % range of both together, so that no method
    gains by the scale of its output. Infinite where both are the same.

    Parameters
    ----------
    a, b
        Intensities in one unit and of one shape.
    """
    pooled = np.concatenate([a.ravel(), b.ravel()])
    low, high = np.percentile(pooled, [1, 99])
    error = (a.astype(np.float64) - b) / (high - low)
    mean = float(np.mean(np.square(error)))
    return -10 * math.log10(mean) if mean > 0 else math.inf
