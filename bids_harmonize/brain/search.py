"""The brain of a head scan, whatever its contrast.

The atlas, placed onto the scan, says where each tissue is likely to be; the scan's own intensities there say
what the tissue looks like in it; and both together say what every voxel is (expectation and maximization, as
in Ashburner and Friston 2005, doi:10.1016/j.neuroimage.2005.02.018, with histograms instead of Gaussians, as
a tissue may look like anything).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bids_harmonize.brain.atlas import BRAIN, CLASSES, Atlas
from bids_harmonize.brain.placement import (
    BINS,
    FINE_MM,
    Pose,
    bin_of,
    in_cells,
    place,
    places_of,
)
from bids_harmonize.imaging.brain import Brain, NoBrain, ReceiveField
from bids_harmonize.imaging.foreground import Foreground
from bids_harmonize.imaging.masks import BRAIN_MILLILITRES, largest_piece, within
from bids_harmonize.imaging.orientation import Affine, from_ras, ras_axes, to_ras
from bids_harmonize.imaging.types import Volume
from bids_harmonize.threads import one_thread

# Nothing shorter than this along any axis is searched for a brain, mm.
MIN_EXTENT_MM = 60.0
# What the placed atlas and the intensities of brains say of one another at least, and how much of the brain
# that the intensities show lies in that of the atlas (Dice).
MIN_EXPLAINED, MIN_OVERLAP = 0.15, 0.8
# Where the atlas has less of a brain than this, there is none.
NEARLY_NO_BRAIN = 0.02
# Rounds of naming tissues by their looks, and looks by tissues; the receive field is found anew in these.
ROUNDS, FIELD_ROUNDS = 8, (1, 2, 3, 4, 6)
# Anatomy that the atlas does not have, so that no voxel is sure to be anything by its place alone.
ANYWHERE = 0.004
# Histograms are smoothed by as many bins, and no intensity is impossible in a tissue.
SMOOTHING_BINS, SELDOM = 1.0, 1e-2
# Voxels are taken for a tissue where it is as likely as this.
SURE = 0.8
# The border of a brain is smooth.
BORDER_MM = 1.5
# At the border of a brain fluid is thin, and bone is near, which may be as dark or as bright: what fluid
# looks like is seen where it is deeper than this, such as in the ventricles.
DEEP_MM = 8.0
# Tissues whose levels are all within this factor are none.
ALIKE, ALL_ALIKE = 1.05, "no brain was found (its tissues are all alike)"
# A tissue of fewer voxels has no level.
MIN_TISSUE_VOXELS = 20


def find_brain(volume: Volume, zooms: tuple[float, float, float], affine: Affine) -> Brain | NoBrain:
    """Find the brain of a head scan, whatever its contrast.

    Parameters
    ----------
    volume
        ``(x, y, z)``, finite, not negative; voxels of about 2 mm are as good as smaller ones.
    zooms
        Voxel size in mm.
    affine
        Which way the axes point.

    Returns
    -------
    Brain or NoBrain
        Masks are on the grid of the volume.
    """
    turned, (order, _) = to_ras(volume, affine), ras_axes(affine)
    sizes = (zooms[order[0]], zooms[order[1]], zooms[order[2]])
    if not np.any(turned > 0):
        return NoBrain(reason="no brain was found (but nothing at all)")
    foreground = Foreground.of(turned, sizes)
    inside = foreground.box.within(turned.shape)
    extent = [(part.stop - part.start) * size for part, size in zip(inside, sizes, strict=True)]
    if min(extent) < MIN_EXTENT_MM:
        return NoBrain(
            reason="no brain was found (but something of {:.0f} x {:.0f} x {:.0f} mm)".format(*extent)
        )
    # In units of the bright value no sum of voxels is too large for float32.
    with one_thread():
        found = _search(turned[inside] / np.float32(foreground.scale), sizes)
    if isinstance(found, NoBrain):
        return found
    return found.in_whole(inside, turned.shape).on_grid(lambda mask: from_ras(mask, affine), zooms)


def _search(volume: Volume, zooms: tuple[float, float, float]) -> Brain | NoBrain:
    atlas = Atlas.bundled()
    placed = place(atlas, volume, zooms)
    if placed.explained < MIN_EXPLAINED:
        return NoBrain(
            reason=f"no brain was found (the best guess explains {placed.explained:.0%} of the image)"
        )
    places = placed.cells.places
    near = places[atlas.at(placed.pose(places))[BRAIN].sum(0) > NEARLY_NO_BRAIN]
    if not len(near):
        return NoBrain(reason="no brain was found (but one outside of the image)")
    inside = _slices(near, volume.shape, zooms)
    if min(part.stop - part.start for part in inside) * min(zooms) < MIN_EXTENT_MM / 2:
        return NoBrain(reason="no brain was found (but the edge of one)")
    pose = placed.pose.in_part(inside, volume.shape, zooms)
    found = _segment(atlas, pose, volume[inside], zooms, placed.edges)
    return found if isinstance(found, NoBrain) else found.in_whole(inside, volume.shape)


def _slices(
    places: Tensor, shape: Sequence[int], zooms: tuple[float, float, float]
) -> tuple[slice, slice, slice]:
    """The part of a volume around places, mm from its middle."""
    low, high = places.amin(0).tolist(), places.amax(0).tolist()
    x, y, z = (
        slice(max(0, round((start - FINE_MM) / zoom + n / 2)), min(n, round((stop + FINE_MM) / zoom + n / 2)))
        for start, stop, zoom, n in zip(low, high, zooms, shape, strict=True)
    )
    return x, y, z


def _segment(
    atlas: Atlas,
    pose: Pose,
    volume: Volume,
    zooms: tuple[float, float, float],
    edges: NDArray[np.float32],
) -> Brain | NoBrain:
    """The brain in a volume around it."""
    cells, sizes = in_cells(volume, zooms, FINE_MM)
    places = places_of(cells.shape, sizes)
    looks, field = _looks(cells.flatten(), places, _expected(atlas, pose, places), edges)
    places = places_of(volume.shape, torch.tensor(zooms))
    expected = _expected(atlas, pose, places)
    values = torch.from_numpy(np.ascontiguousarray(volume)).flatten() / field_at(field, places).exp()
    likely = _named(expected, looks, bin_of(values, edges)).view(-1, *volume.shape).numpy()
    found = _brain(likely, expected.view(-1, *volume.shape).numpy(), zooms)
    return found if isinstance(found, NoBrain) or _differ(found, volume) else NoBrain(reason=ALL_ALIKE)


def _differ(brain: Brain, volume: Volume) -> bool:
    """Whether the tissues are told apart by more than their place."""
    levels = astuple(brain.levels(volume))
    return max(levels) > ALIKE * min(levels)


def field_at(field: ReceiveField, places: Tensor) -> Tensor:
    """The logarithm of the field at places ``(n, 3)``, mm."""
    return torch.from_numpy(field.at(places.numpy())).float()


def _expected(atlas: Atlas, pose: Pose, places: Tensor) -> Tensor:
    """How likely every class is by its place alone, ``(classes, n)``."""
    shares = atlas.at(pose(places)) + ANYWHERE
    return shares / shares.sum(0)


def _looks(
    values: Tensor, places: Tensor, expected: Tensor, edges: NDArray[np.float32]
) -> tuple[Tensor, ReceiveField]:
    """How likely every intensity is in every class, ``(bins, classes)``, without the field; and the field."""
    log = values.clamp(min=torch.finfo(values.dtype).tiny).log()
    field, bins, likely = _no_field(), bin_of(values, edges), expected
    for number in range(ROUNDS):
        looks = _smooth(torch.zeros(BINS, len(CLASSES)).index_add(0, bins, likely.T))
        likely = _named(expected, looks, bins)
        if number in FIELD_ROUNDS:
            field = _field(log, places, likely, values > 0) or field
            bins = bin_of(values / field_at(field, places).exp(), edges)
    return looks, field


def _named(expected: Tensor, looks: Tensor, bins: Tensor) -> Tensor:
    """How likely every class is by place and intensity."""
    likely = expected * looks[bins].T
    return likely / likely.sum(0)


def _smooth(counts: Tensor) -> Tensor:
    smoothed = ndimage.gaussian_filter1d(counts.numpy(), SMOOTHING_BINS, axis=0) + SELDOM
    return torch.from_numpy(smoothed / smoothed.sum(0)).float()


def _no_field() -> ReceiveField:
    return ReceiveField(centre=np.zeros(3), coefficients=np.zeros(len(ReceiveField.POWERS) + 1))


def _field(log: Tensor, places: Tensor, likely: Tensor, positive: Tensor) -> ReceiveField | None:
    """The receive field in white and grey matter; None where there is too little of one."""
    parts = [positive & (likely[CLASSES.index(name)] > SURE) for name in ("grey matter", "white matter")]
    if min(int(part.sum()) for part in parts) < MIN_TISSUE_VOXELS:
        return None
    return ReceiveField.fit(
        [places[part].double().numpy() for part in parts], [log[part].double().numpy() for part in parts]
    )


def _brain(
    likely: NDArray[np.float32], expected: NDArray[np.float32], zooms: tuple[float, float, float]
) -> Brain | NoBrain:
    inside = ndimage.gaussian_filter(likely[BRAIN].sum(axis=0), [BORDER_MM / zoom for zoom in zooms])
    mask = np.asarray(ndimage.binary_fill_holes(largest_piece(inside > 0.5)), dtype=bool)
    millilitres = np.count_nonzero(mask) * np.prod(zooms) / 1000
    low, high = BRAIN_MILLILITRES
    if not low < millilitres < high:
        return NoBrain(reason=f"no brain was found (but {millilitres:.0f} ml)")
    by_place = expected[BRAIN].sum(axis=0) > 0.5
    overlap = 2 * np.count_nonzero(mask & by_place) / (np.count_nonzero(mask) + np.count_nonzero(by_place))
    if overlap < MIN_OVERLAP:
        return NoBrain(reason="no brain was found (but something of another shape)")
    csf, grey, white = (np.asarray(mask & (likely[k] > SURE), dtype=bool) for k in range(1, 4))
    deep = csf & ~within(~mask, zooms, DEEP_MM)
    if np.count_nonzero(deep) >= MIN_TISSUE_VOXELS:
        csf = np.asarray(deep, dtype=bool)
    for name, tissue in zip(CLASSES[BRAIN], (csf, grey, white), strict=True):
        if np.count_nonzero(tissue) < MIN_TISSUE_VOXELS:
            return NoBrain(reason=f"no brain was found (its {name} cannot be told from the rest)")
    return Brain(mask=mask, csf=csf, grey_matter=grey, white_matter=white, zooms=zooms)
