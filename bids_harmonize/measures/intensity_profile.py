"""The intensities of a scan before and after, in numbers small enough for a sidecar.

The group level compares sites by them alone, without any image. They are measured on means of `Blocks`; both
images have the same masks, found on the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_harmonize.files.rounding import round_significant
from bids_harmonize.imaging.brain import Brain, NoBrain
from bids_harmonize.imaging.masks import BRAIN_MILLILITRES, head_mask, is_stripped
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.measures.quantiles import region_quantiles
from bids_harmonize.measures.scan_intensities import (
    TISSUES,
    IntensityProfile,
    ScanIntensities,
)
from bids_harmonize.measures.types import Array

# Rounding to this many significant digits changes nothing that is measured on a scan.
SIGNIFICANT_DIGITS = 4


def describe_intensities(
    before: Volume,
    after: Volume | None,
    scale: float,
    zooms: Sequence[float],
    *,
    brain: Brain | NoBrain,
    head: bool,
    stripped: bool | None = None,
) -> ScanIntensities:
    """Measure the intensities of a scan before and after harmonization.

    Parameters
    ----------
    before
        The scan in `Blocks`, (x, y, z), finite and not negative.
    after
        Its harmonized version, in the same; None if it was passed through.
    scale
        The bright value of the scan (`intensity_scale`), in units of which `before` is described.
    zooms
        Size of the blocks in mm.
    brain
        The brain in them.
    head
        Whether the scan is of a head.
    stripped
        Whether nothing but a brain is left of a head; None if that is to be found out.

    Returns
    -------
    ScanIntensities
        Quantile functions and medians, of four digits.
    """
    image = before / np.float32(scale)
    inside = head_mask(image, scale=1.0)
    if stripped is None:
        stripped = head and is_stripped(image) and _fits_in_skull(inside, zooms)
    if not inside.any():
        return ScanIntensities(stripped=stripped, no_brain="nothing is brighter than air in blocks of 2 mm")
    return ScanIntensities(
        before=_profile(image, inside, brain),
        after=None if after is None else _profile(after, inside, brain),
        stripped=stripped,
        no_brain=brain.reason if isinstance(brain, NoBrain) else None,
    )


def _profile(volume: Volume, inside: Mask, brain: Brain | NoBrain) -> IntensityProfile:
    foreground = _quantiles(volume, inside)
    if isinstance(brain, NoBrain):
        return IntensityProfile(foreground=foreground)
    levels = brain.levels(volume)
    medians = (levels.white_matter, levels.grey_matter, levels.csf)
    return IntensityProfile(
        foreground=foreground,
        brain=_quantiles(volume, brain.mask),
        tissues={
            name: round_significant(median, SIGNIFICANT_DIGITS)
            for name, median in zip(TISSUES, medians, strict=True)
        },
    )


def _fits_in_skull(inside: Mask, zooms: Sequence[float]) -> bool:
    """Whether a head is small enough to be a brain: the air around a whole one may have been set to 0 too."""
    return bool(np.count_nonzero(inside) * np.prod(zooms) / 1000 <= BRAIN_MILLILITRES[1])


def _quantiles(volume: Volume, region: Mask) -> Array:
    quantiles = region_quantiles(volume, region).tolist()
    return np.array([round_significant(value, SIGNIFICANT_DIGITS) for value in quantiles])
