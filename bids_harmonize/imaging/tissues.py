"""The tissues of a brain, by their intensities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.errors import BadData
from bids_harmonize.imaging.masks import MIN_REGION_VOXELS
from bids_harmonize.imaging.types import Mask, Volume

# The tissues of a brain from dark to bright, by modality, where their contrast tells them apart. In FLAIR the
# class of white matter holds what is half fluid, half grey matter.
TISSUE_ORDER: Mapping[str, tuple[str, str, str]] = {
    "T1w": ("csf", "grey matter", "white matter"),
    "T2w": ("white matter", "grey matter", "csf"),
    "FLAIR": ("csf", "white matter", "grey matter"),
}
# Shares of a brain's voxels that are not classified: what is left of air and sinuses, and of fat and vessels.
DARKEST_SHARE, BRIGHTEST_SHARE = 0.02, 0.01
# The quantiles at which the means of the three classes start, the same for all scans.
INITIAL_QUANTILES = (0.1, 0.5, 0.9)
# The means of 52 brains stood still after 3 to 30 iterations.
MAX_ITERATIONS = 50


def tissue_limits(values: NDArray[np.floating]) -> tuple[float, float, float, float]:
    """The intensities at which the three classes of a brain begin and end, rising.

    k-means on the intensities without the darkest 2 % and the brightest 1 %. The first class lies between
    the first and the second limit, and so on; a limit belongs to the classes on both sides.

    Parameters
    ----------
    values
        Intensities of the brain's voxels, finite; at least one.
    """
    # On sorted values a class is a range, and its mean a difference of sums. scipy.cluster.vq.kmeans2 gives
    # the same, but does not stop when the means stand still, and takes a tenth of a second for a brain.
    ranked = np.sort(values.astype(np.float64))
    ranked = ranked[int(DARKEST_SHARE * ranked.size) : int((1 - BRIGHTEST_SHARE) * ranked.size) or None]
    sums = np.concatenate([[0.0], np.cumsum(ranked)])
    means = np.quantile(ranked, INITIAL_QUANTILES)
    for _ in range(MAX_ITERATIONS):
        thresholds = (means[:-1] + means[1:]) / 2
        edges = np.array([0, *np.searchsorted(ranked, thresholds, side="right"), ranked.size])
        sizes = np.diff(edges)
        # A class without a value keeps its mean.
        updated = np.where(sizes > 0, np.diff(sums[edges]) / np.maximum(sizes, 1), means)
        if np.array_equal(updated, means):
            break
        means = updated
    return float(ranked[0]), float(thresholds[0]), float(thresholds[1]), float(ranked[-1])


def tissues(volume: Volume, brain: Mask, *, modality: str) -> tuple[Mask, Mask, Mask]:
    """White matter, grey matter and fluid of a brain, by `tissue_limits`.

    Where the mask has cut away most of the fluid, its class holds the grey matter next to it.

    Parameters
    ----------
    volume
        ``(x, y, z)``, in any unit.
    brain
        The brain's mask.
    modality
        One of `TISSUE_ORDER`.

    Raises
    ------
    BadData
        The mask holds too few voxels.
    """
    values = volume[brain]
    if values.size < MIN_REGION_VOXELS:
        raise BadData("no brain was found")
    lowest, dark, light, highest = tissue_limits(values)
    classes = {
        name: np.asarray(brain & (volume >= low) & (volume <= high), dtype=bool)
        for name, low, high in zip(
            TISSUE_ORDER[modality], (lowest, dark, light), (dark, light, highest), strict=True
        )
    }
    return classes["white matter"], classes["grey matter"], classes["csf"]


def white_and_grey(volume: Volume, brain: Mask, *, modality: str) -> tuple[Mask, Mask]:
    """White and grey matter, as `tissues` finds them."""
    return tissues(volume, brain, modality=modality)[:2]
