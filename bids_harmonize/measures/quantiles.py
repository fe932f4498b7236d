"""The quantiles by which distributions of intensities are described."""

from __future__ import annotations

import numpy as np

from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.measures.types import Array

QUANTILES = np.linspace(0.02, 0.98, 49)


def region_quantiles(volume: Volume, region: Mask) -> Array:
    """The quantile function of the intensities in a region, at `QUANTILES`.

    Parameters
    ----------
    volume
        ``(x, y, z)``, in any unit.
    region
        A mask of the same shape that holds at least one voxel.

    Returns
    -------
    ndarray
        ``(len(QUANTILES),)`` float64 in the unit of the volume, rising.
    """
    return np.quantile(volume[region].astype(np.float64), QUANTILES)
