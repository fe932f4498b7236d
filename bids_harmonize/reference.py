"""The reference group: where its brain and white matter lie, and which scans belong to it.

Used in training only. Harmonizing a scan needs neither a brain mask nor a tissue class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.errors import BadData

Mask = NDArray[np.bool_]
Volume = NDArray[np.float32]

# Wide enough to cut the optic nerves and vessels that tie the brain to the scalp in a threshold image.
OPENING_MM = 5.0
# Of brain and what the mask leaves in or out; a larger one holds scalp, a smaller one is a piece.
BRAIN_MILLILITRES = (600, 2200)
# Air around a whole head is noise, seldom 0; around a skull-stripped brain it is 0 everywhere.
STRIPPED_SHARE = 0.6
QUANTILES = np.linspace(0.02, 0.98, 49)


@dataclass(frozen=True, kw_only=True)
class ReferenceScan:
    """One scan of the group: name, volume (x, y, z), zooms in mm, and what was measured on it."""

    name: str
    volume: Volume
    zooms: tuple[float, float, float]
    brain: Mask
    white_matter: float

    @property
    def quantiles(self) -> NDArray[np.float64]:
        """The brain's quantile function in units of its white matter."""
        return np.quantile(self.volume[self.brain].astype(np.float64), QUANTILES) / self.white_matter


def measure_scan(
    name: str, volume: Volume, zooms: tuple[float, float, float], modality: str
) -> ReferenceScan:
    """Find brain and white matter of a head scan."""
    brain = brain_mask(volume, zooms)
    _check_size(name, brain, zooms)
    white = white_matter_median(volume, brain, bright=modality == "T1w")
    return ReferenceScan(name=name, volume=volume, zooms=zooms, brain=brain, white_matter=white)


def choose_group(scans: Sequence[ReferenceScan], size: int) -> list[ReferenceScan]:
    """The `size` most homogeneous scans.

    The one farthest from the median of all leaves, again and again, until `size` are left. Distance is the
    mean difference of the brain's quantile functions, in units of white matter.
    """
    group = list(scans)
    while len(group) > size:
        curves = np.stack([scan.quantiles for scan in group])
        distances = np.abs(curves - np.median(curves, axis=0)).mean(axis=1)
        del group[int(np.argmax(distances))]
    return group


def brain_mask(volume: Volume, zooms: Sequence[float]) -> Mask:
    """The brain of a head scan, by threshold, opening and the largest component; a few mm exact.

    Good enough to weigh a loss, to imitate skull-stripping and to find white matter.
    """
    if np.mean(volume == 0) > STRIPPED_SHARE:
        return np.asarray(ndimage.binary_fill_holes(_largest(volume > 0)), dtype=bool)
    smooth = ndimage.gaussian_filter(volume, [0.8 / zoom for zoom in zooms])
    head = smooth > otsu(smooth[smooth > 0])
    depth = ndimage.distance_transform_edt(head, sampling=zooms)
    core = _largest(depth > OPENING_MM)
    near = ndimage.distance_transform_edt(~core, sampling=zooms) <= OPENING_MM + 1.0
    closed = ndimage.distance_transform_edt(~(near & head), sampling=zooms) <= OPENING_MM
    inside = ndimage.distance_transform_edt(closed, sampling=zooms) > OPENING_MM
    return np.asarray(ndimage.binary_fill_holes(inside | (near & head)), dtype=bool)


def _check_size(name: str, brain: Mask, zooms: Sequence[float]) -> None:
    """Refuse what is too large or too small for a brain."""
    millilitres = np.count_nonzero(brain) * np.prod(zooms) / 1000
    low, high = BRAIN_MILLILITRES
    if not low < millilitres < high:
        raise BadData(f"no brain was found in {name} (but {millilitres:.0f} ml); leave it out of the group")


def white_matter_median(volume: Volume, brain: Mask, *, bright: bool) -> float:
    """Median of the white matter: the brightest (T1w) or darkest (T2w) of the brain's tissues.

    Three classes by k-means on the intensities inside the brain.
    """
    values = np.sort(volume[brain].astype(np.float64))
    if values.size < 100:
        raise BadData("no brain was found in a reference scan; leave the scan out of the group")
    values = values[int(0.02 * values.size) : int(0.99 * values.size)]
    classes = _three_classes(values)
    return float(np.median(values[classes == (2 if bright else 0)]))


def otsu(values: NDArray[np.float32]) -> float:
    """Otsu's threshold (1979) between two classes of intensities."""
    counts, edges = np.histogram(values, bins=256, range=(0, float(np.percentile(values, 99.5))))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    moment = np.cumsum(counts * centres)
    valid = (below > 0) & (above > 0)
    low = moment[valid] / below[valid]
    high = (moment[-1] - moment[valid]) / above[valid]
    return float(centres[valid][np.argmax(below[valid] * above[valid] * (high - low) ** 2)])


def _three_classes(values: NDArray[np.float64]) -> NDArray[np.intp]:
    means = np.quantile(values, [0.1, 0.5, 0.9])
    for _ in range(50):
        classes = np.searchsorted((means[:-1] + means[1:]) / 2, values)
        updated = np.array(
            [values[classes == k].mean() if np.any(classes == k) else means[k] for k in range(3)]
        )
        if np.allclose(updated, means, rtol=1e-6):
            break
        means = updated
    return classes


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(labels == 1 + int(np.argmax(sizes)), dtype=bool)
