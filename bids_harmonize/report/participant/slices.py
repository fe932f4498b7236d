"""Slices of a scan before and after, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.files.atomic import write_atomically
from bids_harmonize.imaging.slices import fullest_slice, slice_at, slice_extent, voxels_per_slice
from bids_harmonize.report.components.pictures import grey_png
from bids_harmonize.report.components.thumbnails import thumbnail
from bids_harmonize.report.participant.image_view import ImageView
from bids_harmonize.report.participant.manifest import AFTER, BEFORE, PLANES, FigureInputs, Plane

# The middle of a brain lies this far below the top of the head.
BELOW_TOP_MM = 70.0
# A slice with a smaller share of the tissue of the fullest slice is above or below the head.
MIN_TISSUE = 0.02

ScalarT = TypeVar("ScalarT", bound=np.generic)


def planes_through_tissue(view: ImageView) -> list[Plane]:
    """The slice through the most tissue across each axis."""
    shape = view.volume.shape
    planes = []
    for name, axis in PLANES.items():
        across, upwards = slice_extent(shape, view.zooms, axis)
        number = fullest_slice(view.tissue, axis) * (view.sampled[axis].step or 1) + 1
        planes.append(Plane(name=name, number=number, slices=shape[axis], across=across, upwards=upwards))
    return planes


def middle_plane(view: ImageView) -> Plane:
    """The axial slice through the middle of a brain, or of the tissue where less than a head is seen.

    It lies a fixed way below the top of the head: how much of the neck is seen has no influence.
    """
    axis = PLANES["axial"]
    across, upwards = slice_extent(view.volume.shape, view.zooms, axis)
    step = view.sampled[axis].step or 1
    counts = voxels_per_slice(view.tissue, axis)
    seen = np.flatnonzero(counts > MIN_TISSUE * counts.max())
    depth = min(BELOW_TOP_MM / (view.zooms[axis] * step), (seen[-1] - seen[0]) / 2) if seen.size else 0
    number = int((seen[-1] if seen.size else len(counts) // 2) - depth) * step + 1
    return Plane(name="axial", number=number, slices=view.volume.shape[axis], across=across, upwards=upwards)


def slice_of_plane(volume: NDArray[ScalarT], plane: Plane) -> NDArray[ScalarT]:
    """A slice, across and upwards; a view of the volume."""
    return slice_at(volume, PLANES[plane.name], plane.number - 1)


def write_slices(
    scan: FigureInputs, planes: Sequence[Plane], before: ImageView | None, after: ImageView | None
) -> list[str]:
    """Write the slices of the images that there are, and say of which.

    Each image has one window, from 0 to the 99th percentile of its own foreground.
    """
    views = {what: view for what, view in ((BEFORE, before), (AFTER, after)) if view is not None}
    for what, view in views.items():
        for plane in planes:
            picture = grey_png(slice_of_plane(view.volume, plane), view.scale)
            write_picture(scan.picture(what, plane.name), picture)
    return list(views)


def write_thumbnail(scan: FigureInputs, before: ImageView | None, after: ImageView | None) -> None:
    """Write the small picture of the middle slice of the images that there are.

    What was harmonized has the window of the reference group, the same for all scans; others have their own.
    """
    shown = after or before
    if shown is None:
        return
    plane = middle_plane(shown)
    white = scan.reference.bright if scan.reference is not None else None
    halves = [
        None if view is None else (slice_of_plane(view.volume, plane), own_white or view.scale)
        for view, own_white in ((before, None), (after, white))
    ]
    write_picture(scan.thumbnail, thumbnail(halves, (plane.across, plane.upwards)))


def write_picture(path: Path, picture: bytes) -> None:
    """Write a picture as a whole or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(picture)
