"""Where the anatomy lies: masks of the head, of its brain, and of tissue in other body parts.

They come from thresholds and distances alone and are a few mm exact. That is good enough to weigh a loss, to
imitate skull-stripping, to find the intensity of white matter, to measure quality and to compare sites.
Harmonizing needs none of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.errors import BadData
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.slices import slice_axis
from bids_harmonize.imaging.types import Mask, Volume

# This opening is wide enough to cut the optic nerves and vessels that tie the brain to the scalp in a
# threshold image.
OPENING_MM = 5.0
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


def brain_mask(volume: Volume, zooms: Sequence[float]) -> Mask:
    """The brain of a head scan, by threshold, opening and the largest component; a few mm exact.

    Parameters
    ----------
    volume
        ``(x, y, z)``, in any unit.
    zooms
        Voxel size in mm.
    """
    if is_stripped(volume):
        return np.asarray(ndimage.binary_fill_holes(largest_piece(volume > 0)), dtype=bool)
    smooth = ndimage.gaussian_filter(volume, [0.8 / zoom for zoom in zooms])
    head = smooth > otsu(smooth[smooth > 0])
    core = largest_piece(~within(~head, zooms, OPENING_MM))
    mask = np.zeros(volume.shape, dtype=bool)
    # No step reaches farther than this from the core.
    box = _box(core, zooms, 3 * OPENING_MM + 1.0)
    opened = within(core[box], zooms, OPENING_MM + 1.0) & head[box]
    closed = ~within(~within(opened, zooms, OPENING_MM), zooms, OPENING_MM)
    mask[box] = ndimage.binary_fill_holes(closed | opened)
    return mask


def check_brain(brain: Mask, zooms: Sequence[float]) -> None:
    """Refuse what is too large or too small for a brain.

    Raises
    ------
    BadData
        The message says what volume was found.
    """
    millilitres = np.count_nonzero(brain) * np.prod(zooms) / 1000
    low, high = BRAIN_MILLILITRES
    if not low < millilitres < high:
        raise BadData(f"no brain was found (but {millilitres:.0f} ml)")


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


def otsu(values: NDArray[np.float32]) -> float:
    """Otsu's threshold (1979) between two classes of intensities."""
    counts, edges = np.histogram(values, bins=256, range=(0, float(np.percentile(values, 99.5))))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    moment = np.cumsum(counts * centres)
    valid = (below > 0) & (above > 0)
    if not np.any(valid):
        # All values are alike: they are one class, which lies above the threshold.
        return 0.0
    low = moment[valid] / below[valid]
    high = (moment[-1] - moment[valid]) / above[valid]
    return float(centres[valid][np.argmax(below[valid] * above[valid] * (high - low) ** 2)])


def _box(mask: Mask, zooms: Sequence[float], margin: float) -> tuple[slice, ...]:
    """The box around a mask, with a margin in mm; the whole volume where the mask is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return (slice(None),) * mask.ndim
    margins = [math.ceil(margin / zoom) for zoom in zooms]
    return tuple(
        slice(max(0, extent.start - voxels), extent.stop + voxels)
        for extent, voxels in zip(found[0], margins, strict=True)
    )


def largest_piece(mask: Mask) -> Mask:
    """The largest piece of a mask whose voxels touch by their faces."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(labels == 1 + int(np.argmax(sizes)), dtype=bool)
