"""The intensities of a scan before and after, in numbers small enough for a sidecar.

The group level compares sites by them alone, without any image. They are measured on means of blocks of about
2 mm, where masks are as exact as they get; both images have the same masks, found on the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_harmonize.errors import BadData
from bids_harmonize.files.rounding import round_significant
from bids_harmonize.imaging.masks import BRAIN_MILLILITRES, find_brain, head_mask, is_stripped
from bids_harmonize.imaging.tissues import tissues
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.measures.quantiles import region_quantiles
from bids_harmonize.measures.scan_intensities import (
    TISSUES,
    IntensityProfile,
    ScanIntensities,
)
from bids_harmonize.measures.types import Array

WORKING_MM = 2.0

# Rounding to this many significant digits changes nothing that is measured on a scan.
SIGNIFICANT_DIGITS = 4


def describe_intensities(
    before: Volume,
    after: Volume | None,
    scale: float,
    zooms: Sequence[float],
    *,
    modality: str,
    head: bool,
    stripped: bool | None = None,
) -> ScanIntensities:
    """Measure the intensities of a scan before and after harmonization.

    Parameters
    ----------
    before
        The scan, (x, y, z), finite and not negative.
    after
        Its harmonized version; None if it was passed through.
    scale
        The bright value of the scan (`intensity_scale`), in units of which `before` is described.
    zooms
        Voxel size in mm.
    modality
        ``T1w`` or ``T2w``: in the first, white matter is the brightest tissue.
    head
        Whether there should be a brain.
    stripped
        Whether nothing but a brain is left of a head; None if that is to be found out.

    Returns
    -------
    ScanIntensities
        Quantile functions and medians, of four digits.
    """
    steps = [max(1, min(round(WORKING_MM / zoom), n)) for zoom, n in zip(zooms, before.shape, strict=True)]
    coarse_zooms = [zoom * step for zoom, step in zip(zooms, steps, strict=True)]
    coarse = block_means(before, steps) / np.float32(scale)
    coarse_after = None if after is None else block_means(after, steps)
    inside = head_mask(coarse, scale=1.0)
    if stripped is None:
        stripped = head and is_stripped(coarse) and _fits_in_skull(inside, coarse_zooms)
    if not inside.any():
        return ScanIntensities(stripped=stripped, no_brain="nothing is brighter than air in blocks of 2 mm")
    no_brain = brain = None
    try:
        brain = _brain(coarse, coarse_zooms, modality=modality, head=head)
    except BadData as reason:
        no_brain = str(reason)
    return ScanIntensities(
        before=_profile(coarse, inside, brain),
        after=None if coarse_after is None else _profile(coarse_after, inside, brain),
        stripped=stripped,
        no_brain=no_brain,
    )


def block_means(volume: Volume, steps: Sequence[int]) -> Volume:
    """Means over blocks of `steps` voxels along each axis; voxels left over at the ends are left out."""
    whole = [n // step * step for n, step in zip(volume.shape, steps, strict=True)]
    shape = [n // step for n, step in zip(whole, steps, strict=True)]
    # Volumes from NIfTI lie in memory in this order.
    total = np.zeros(shape, dtype=np.float32, order="F")
    share = np.float32(np.prod(steps))
    # Pieces are added up one by one, which spares a second copy of a large volume, and are divided before,
    # since their sum may be more than float32 holds.
    for offset in np.ndindex(*steps):
        piece = tuple(slice(k, n, step) for k, n, step in zip(offset, whole, steps, strict=True))
        total += volume[piece] / share
    return np.ascontiguousarray(total)


def _profile(
    volume: Volume, inside: Mask, brain: tuple[Mask, tuple[Mask, Mask, Mask]] | None
) -> IntensityProfile:
    foreground = _quantiles(volume, inside)
    if brain is None:
        return IntensityProfile(foreground=foreground)
    whole, masks = brain
    return IntensityProfile(
        foreground=foreground,
        brain=_quantiles(volume, whole),
        tissues={
            name: round_significant(float(np.median(volume[mask])), SIGNIFICANT_DIGITS)
            for name, mask in zip(TISSUES, masks, strict=True)
        },
    )


def _brain(
    volume: Volume, zooms: Sequence[float], *, modality: str, head: bool
) -> tuple[Mask, tuple[Mask, Mask, Mask]]:
    if not head:
        raise BadData("brains are looked for in heads only")
    bright = modality == "T1w"
    brain = find_brain(volume, zooms, bright=bright)
    masks = tissues(volume, brain, bright=bright)
    if not all(mask.any() for mask in masks) or len({np.median(volume[mask]) for mask in masks}) < len(masks):
        raise BadData("no brain was found (its tissues are all alike)")
    return brain, masks


def _fits_in_skull(inside: Mask, zooms: Sequence[float]) -> bool:
    """Whether a head is small enough to be a brain: the air around a whole one may have been set to 0 too."""
    return bool(np.count_nonzero(inside) * np.prod(zooms) / 1000 <= BRAIN_MILLILITRES[1])


def _quantiles(volume: Volume, region: Mask) -> Array:
    quantiles = region_quantiles(volume, region).tolist()
    return np.array([round_significant(value, SIGNIFICANT_DIGITS) for value in quantiles])
