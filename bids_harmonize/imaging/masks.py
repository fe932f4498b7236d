"""Where the anatomy lies: masks of the head, and of tissue in other body parts.

They come from thresholds and distances alone and are a few mm exact. That is good enough to weigh a loss, to
measure quality and to compare sites. Harmonizing needs none of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from bids_harmonize.errors import BadData
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.slices import slice_axis
from bids_harmonize.imaging.types import Mask, Volume

# Volumes of brains with what a mask leaves in or out; a larger mask holds scalp, a smaller one is a piece.
BRAIN_MILLILITRES = (600, 2200)
# Air around a whole head is noise, seldom 0; around a skull-stripped brain it is 0 everywhere. A scan with a
# larger share of zeros is taken for skull-stripped.
MAX_ZERO_SHARE = 0.6
# What is darker than this share of the bright value is air. Otsu's threshold would part fat from muscle where
# there is little air, as in a pelvis.
AIR_SHARE = 0.05
# This blur takes the peaks off the noise, and leaves muscle apart from the gas beside it.
TISSUE_BLUR_MM = 0.8
# A region of fewer voxels has no distribution of intensities.
MIN_REGION_VOXELS = 100


def head_mask(volume: Volume, scale: float | None = None) -> Mask:
    """The largest piece of what is brighter than a tenth of the bright value, with its holes filled.

    Parameters
    ----------
    volume
        ``(x, y, z)``, in any unit.
    scale
        The bright value (`intensity_scale`), if it is known.

    Returns
    -------
    ndarray
        ``(x, y, z)`` bool; empty where nothing is as bright as that.
    """
    bright = intensity_scale(volume) if scale is None else scale
    return np.asarray(ndimage.binary_fill_holes(largest_piece(volume > 0.1 * bright)), dtype=bool)


def is_stripped(volume: Volume) -> bool:
    """Whether nothing but a brain is left of a head."""
    return bool(np.mean(volume == 0) > MAX_ZERO_SHARE)


def within(mask: Mask, zooms: Sequence[float], reach: float) -> Mask:
    """What is no farther than `reach` mm from the nearest voxel of a mask.

    The same as by ``scipy.ndimage.distance_transform_edt``, which finds all distances and takes five times as
    long: least squares of distances axis by axis (after Saito and Toriwaki 1994,
    doi:10.1016/0031-3203(94)90133-3).
    """
    squares = np.where(mask, np.float32(0), np.float32(np.inf))
    for axis, zoom in enumerate(zooms):
        lines = np.moveaxis(squares, axis, 0)
        least = lines.copy()
        for steps in range(1, min(int(reach / zoom), len(lines) - 1) + 1):
            added = np.float32((steps * zoom) ** 2)
            np.minimum(least[steps:], lines[:-steps] + added, out=least[steps:])
            np.minimum(least[:-steps], lines[steps:] + added, out=least[:-steps])
        squares = np.moveaxis(least, 0, axis)
    return np.asarray(squares <= np.float32(reach**2))


def tissue_mask(volume: Volume, zooms: Sequence[float], blur_mm: float = TISSUE_BLUR_MM) -> Mask:
    """What is brighter than air, after a blur of `blur_mm` that takes the peaks off the noise."""
    smooth = ndimage.gaussian_filter(volume, [blur_mm / zoom for zoom in zooms])
    return np.asarray(smooth > AIR_SHARE * intensity_scale(volume), dtype=bool)


def middle_tissue(volume: Volume, zooms: Sequence[float]) -> Mask:
    """Tissue in the middle half of the field of view in plane, in all slices: where an organ is centred.

    Raises
    ------
    BadData
        There is next to none.
    """
    axis = slice_axis(zooms)
    middle = tuple(
        slice(None) if k == axis else slice(n // 4, n - n // 4) for k, n in enumerate(volume.shape)
    )
    mask = np.zeros(volume.shape, dtype=bool)
    mask[middle] = tissue_mask(volume, zooms)[middle]
    if np.count_nonzero(mask) < MIN_REGION_VOXELS:
        raise BadData("there is no tissue in the middle of the field of view")
    return mask


def largest_piece(mask: Mask) -> Mask:
    """The largest piece of a mask whose voxels touch by their faces."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(labels == 1 + int(np.argmax(sizes)), dtype=bool)
