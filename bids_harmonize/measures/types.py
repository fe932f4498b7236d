"""Types of measured numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""Measured numbers in double precision: features, quantile functions, distances, shares."""
