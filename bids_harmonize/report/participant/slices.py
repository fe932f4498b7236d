"""Slices of a scan before and after, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.files.atomic import write_atomically
from bids_harmonize.imaging.slices import fullest_slice, slice_at, slice_extent
from bids_harmonize.report.components.pictures import grey_png
from bids_harmonize.report.participant.image_view import ImageView
from bids_harmonize.report.participant.manifest import AFTER, BEFORE, PLANES, FigureInputs, Plane

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


def write_picture(path: Path, png: bytes) -> None:
    """Write a picture as a whole or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(png)
