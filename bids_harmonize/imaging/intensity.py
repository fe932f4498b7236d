"""The intensity scale of a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.imaging.types import Voxels

# Percentiles of more voxels than this do not change in any digit that matters.
SCALE_SAMPLE = 1_000_000


def intensity_scale(voxels: Voxels) -> float:
    """A robust bright value of the tissue: the 99th percentile of the foreground.

    Foreground is what exceeds a tenth of the 99.5th percentile of the positive voxels, so that neither
    air around the head nor the size of the field of view decides.
    """
    stride = max(1, round((voxels.size / SCALE_SAMPLE) ** (1 / 3)))
    sample = voxels[tuple(slice(None, None, min(stride, n)) for n in voxels.shape)]
    positive = sample[sample > 0]
    if positive.size == 0:
        positive = voxels[voxels > 0]
    return foreground_percentile(positive)


def foreground_percentile(positive: NDArray[np.float32]) -> float:
    """The 99th percentile of what exceeds a tenth of the 99.5th percentile of voxels that are positive."""
    foreground = positive[positive > 0.1 * np.percentile(positive, 99.5)]
    return float(np.percentile(foreground, 99))
