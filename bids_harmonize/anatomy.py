"""Where the anatomy lies that a reference group is judged and weighed by: brain, white matter, tissue.

By thresholds and distances alone, a few mm exact: good enough to weigh a loss, to imitate skull-stripping, to
find a level, to measure quality and to compare sites. Harmonizing needs none of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.errors import BadData
from bids_harmonize.image import intensity_scale

Mask = NDArray[np.bool_]
Volume = NDArray[np.float32]

# Wide enough to cut the optic nerves and vessels that tie the brain to the scalp in a threshold image.
OPENING_MM = 5.0
# Of brain and what the mask leaves in or out; a larger one holds scalp, a smaller one is a piece.
BRAIN_MILLILITRES = (600, 2200)
# A brain is about as deep as a ball; what was taken for one among scalp and neck muscles is not. Over the
# radius of such a ball, masks of 22 real brains have 0.54 to 0.77, those of muscles 0.29 to 0.5.
SHALLOWEST_BRAIN = 0.52
# Of a mask that holds neck or scalp, tried one after the other.
LARGEST_BRAIN_ML = 1800
WIDER_OPENINGS_MM = (8.0, 11.0, 14.0, 17.0)
# Of the median without fat: below grey matter, above air.
CAP = np.float32(0.6)
# Air around a whole head is noise, seldom 0; around a skull-stripped brain it is 0 everywhere.
STRIPPED_SHARE = 0.6
# Of the bright tissue. Otsu's threshold would part fat from muscle where there is little air, as in a pelvis.
AIR_BELOW = 0.05
# Takes the peaks off the noise, and leaves muscle apart from the gas beside it.
BLUR_MM = 0.8
LEAST_VOXELS = 100
# Times the third voxel size, from which on the thickest tells how slices lie.
THICK = 1.5


def head_mask(volume: Volume, scale: float | None = None) -> Mask:
    """What is brighter than a tenth of the bright value, of several pieces the largest, its holes filled.

    Empty where nothing is as bright as that; `scale` is the bright value, if it is known.
    """
    bright = intensity_scale(volume) if scale is None else scale
    return np.asarray(ndimage.binary_fill_holes(_largest(volume > 0.1 * bright)), dtype=bool)


def is_stripped(volume: Volume) -> bool:
    """Whether nothing but a brain is left of a head."""
    return bool(np.mean(volume == 0) > STRIPPED_SHARE)


def brain_mask(volume: Volume, zooms: Sequence[float]) -> Mask:
    """The brain of a head scan, by threshold, opening and the largest component; a few mm exact.

    Good enough to weigh a loss, to imitate skull-stripping and to find white matter.
    """
    if is_stripped(volume):
        return np.asarray(ndimage.binary_fill_holes(_largest(volume > 0)), dtype=bool)
    smooth = ndimage.gaussian_filter(volume, [0.8 / zoom for zoom in zooms])
    head = smooth > otsu(smooth[smooth > 0])
    core = _largest(~within(~head, zooms, OPENING_MM))
    mask = np.zeros(volume.shape, dtype=bool)
    # Nothing is looked at beyond the last step's reach.
    box = _box(core, zooms, 3 * OPENING_MM + 1.0)
    opened = within(core[box], zooms, OPENING_MM + 1.0) & head[box]
    closed = ~within(~within(opened, zooms, OPENING_MM), zooms, OPENING_MM)
    mask[box] = ndimage.binary_fill_holes(closed | opened)
    return mask


def automatic_brain_mask(volume: Volume, zooms: Sequence[float]) -> Mask:
    """The brain; a mask that holds too much to be one is opened until it does not."""
    brain = brain_mask(volume, zooms)
    for opening in WIDER_OPENINGS_MM:
        if np.count_nonzero(brain) * np.prod(zooms) / 1000 <= LARGEST_BRAIN_ML:
            break
        brain = _opened(brain, zooms, opening)
    return brain


def check_brain(brain: Mask, zooms: Sequence[float]) -> None:
    """Refuse what is too large or too small for a brain.

    Raises
    ------
    BadData
        With the volume that was found.
    """
    millilitres = np.count_nonzero(brain) * np.prod(zooms) / 1000
    low, high = BRAIN_MILLILITRES
    if not low < millilitres < high:
        raise BadData(f"no brain was found (but {millilitres:.0f} ml)")


def find_brain(volume: Volume, zooms: Sequence[float], *, bright: bool) -> Mask:
    """The brain, also where fat (`bright`: T1w) or fluid (T2w) outshines it by far.

    Under fat so bright, muscle of the neck may come along.

    Raises
    ------
    BadData
        None was found.
    """
    try:
        return _checked(automatic_brain_mask(volume, zooms), zooms)
    except BadData:
        return _checked(automatic_brain_mask(_dimmed(volume, bright=bright), zooms), zooms)


def check_solid(brain: Mask, zooms: Sequence[float]) -> None:
    """Refuse what has the volume of a brain, but is a shell or scattered.

    Raises
    ------
    BadData
        It is no brain.
    """
    radius = (3 * np.count_nonzero(brain) * np.prod(zooms) / (4 * np.pi)) ** (1 / 3)
    # Beyond the image there is no brain.
    inside = np.pad(brain[_box(brain, zooms, 0)], 1)
    depth = ndimage.distance_transform_edt(inside, sampling=zooms).max()
    if depth < SHALLOWEST_BRAIN * radius:
        raise BadData(f"no brain was found (but something {depth:.0f} mm deep)")


def white_and_grey(volume: Volume, brain: Mask, *, bright: bool) -> tuple[Mask, Mask]:
    """White and grey matter, as `tissues` finds them."""
    return tissues(volume, brain, bright=bright)[:2]


def tissues(volume: Volume, brain: Mask, *, bright: bool) -> tuple[Mask, Mask, Mask]:
    """White matter, grey matter and fluid of a brain.

    White is the brightest (T1w) or darkest (T2w), fluid the other end. Three classes by k-means on the
    intensities inside the brain, without the 2 % darkest and 1 % brightest. Where the mask has cut away most
    of the fluid, its class holds the grey matter next to it.
    """
    values = np.sort(volume[brain].astype(np.float64))
    if values.size < LEAST_VOXELS:
        raise BadData("no brain was found")
    values = values[int(0.02 * values.size) : int(0.99 * values.size)]
    dark, light = _thresholds(values)
    low, high = (values[0], dark), (light, values[-1])
    white, fluid = (high, low) if bright else (low, high)
    return (
        _between(volume, brain, *white),
        _between(volume, brain, dark, light),
        _between(volume, brain, *fluid),
    )


def within(mask: Mask, zooms: Sequence[float], reach: float) -> Mask:
    """What is no farther than so many mm from the nearest voxel of a mask.

    As by ``scipy.ndimage.distance_transform_edt``, which finds all distances and takes five times as long:
    least squares of distances axis by axis (after Saito and Toriwaki 1994, doi:10.1016/0031-3203(94)90133-3).
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


def tissue_mask(volume: Volume, zooms: Sequence[float], blur_mm: float = BLUR_MM) -> Mask:
    """What is brighter than air."""
    smooth = ndimage.gaussian_filter(volume, [blur_mm / zoom for zoom in zooms])
    return np.asarray(smooth > AIR_BELOW * intensity_scale(volume), dtype=bool)


def slice_axis(zooms: Sequence[float]) -> int:
    """The axis across which slices lie: that of the thickest voxels, or the third where none is thick."""
    return 2 if max(zooms) < THICK * zooms[2] else int(np.argmax(zooms))


def middle_tissue(volume: Volume, zooms: Sequence[float]) -> Mask:
    """Tissue in the middle half of the field of view in plane, in all slices: where an organ is centred."""
    axis = slice_axis(zooms)
    middle = tuple(
        slice(None) if k == axis else slice(n // 4, n - n // 4) for k, n in enumerate(volume.shape)
    )
    mask = np.zeros(volume.shape, dtype=bool)
    mask[middle] = tissue_mask(volume, zooms)[middle]
    if np.count_nonzero(mask) < LEAST_VOXELS:
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
        # One class, and all of it above.
        return 0.0
    low = moment[valid] / below[valid]
    high = (moment[-1] - moment[valid]) / above[valid]
    return float(centres[valid][np.argmax(below[valid] * above[valid] * (high - low) ** 2)])


def _thresholds(values: NDArray[np.float64]) -> tuple[float, float]:
    """Between the three classes of k-means."""
    means = np.quantile(values, [0.1, 0.5, 0.9])
    for _ in range(50):
        thresholds = (means[:-1] + means[1:]) / 2
        classes = np.searchsorted(thresholds, values)
        updated = np.array(
            [values[classes == k].mean() if np.any(classes == k) else means[k] for k in range(3)]
        )
        if np.allclose(updated, means, rtol=1e-6):
            break
        means = updated
    return float(thresholds[0]), float(thresholds[1])


def _checked(brain: Mask, zooms: Sequence[float]) -> Mask:
    check_brain(brain, zooms)
    check_solid(brain, zooms)
    return brain


def _dimmed(volume: Volume, *, bright: bool) -> Volume:
    """Without what would take the upper class of Otsu's threshold for itself, so that air has the lower."""
    tissue = volume[head_mask(volume)]
    if tissue.size == 0:
        return volume
    if not bright:
        return np.minimum(volume, np.median(tissue))
    fat = otsu(tissue)
    rest = tissue[tissue <= fat]
    if rest.size == 0:
        return volume
    return np.minimum(np.where(volume > fat, np.float32(0), volume), CAP * np.median(rest))


def _between(volume: Volume, region: Mask, low: float, high: float) -> Mask:
    return np.asarray(region & (volume >= low) & (volume <= high), dtype=bool)


def _opened(mask: Mask, zooms: Sequence[float], width: float) -> Mask:
    opened = np.zeros(mask.shape, dtype=bool)
    # With what is beyond its edges.
    box = _box(mask, zooms, max(zooms))
    core = _largest(~within(~mask[box], zooms, width))
    opened[box] = mask[box] & within(core, zooms, width)
    return opened


def _box(mask: Mask, zooms: Sequence[float], margin: float) -> tuple[slice, ...]:
    """Where a mask lies, with a margin in mm; all where it is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return (slice(None),) * mask.ndim
    margins = [math.ceil(margin / zoom) for zoom in zooms]
    return tuple(
        slice(max(0, axis.start - more), axis.stop + more)
        for axis, more in zip(found[0], margins, strict=True)
    )


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(labels == 1 + int(np.argmax(sizes)), dtype=bool)
