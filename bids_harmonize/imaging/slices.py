"""How volumes are cut into slices for display: across which axis, where, and how large a slice is.

A slice keeps the order of the volume's axes: its first axis runs across the picture, its second upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.imaging.types import Mask

ScalarT = TypeVar("ScalarT", bound=np.generic)

# From this multiple of the third voxel size on, the thickest voxels tell across which axis slices lie.
THICK_VOXEL_RATIO = 1.5


def slice_axis(zooms: Sequence[float]) -> int:
    """The axis across which slices lie: that of the thickest voxels, or the third where none is thick."""
    return 2 if max(zooms) < THICK_VOXEL_RATIO * zooms[2] else int(np.argmax(zooms))


def slice_extent(shape: Sequence[int], zooms: Sequence[float], axis: int) -> tuple[float, float]:
    """Size in mm of a slice across `axis`, across and upwards.

    Parameters
    ----------
    shape
        Voxels of the volume along its three axes.
    zooms
        Voxel size in mm along the same axes.
    axis
        The axis across which the slice lies.
    """
    across, upwards = (
        n * zoom for other, (n, zoom) in enumerate(zip(shape, zooms, strict=True)) if other != axis
    )
    return across, upwards


def voxels_per_slice(mask: Mask, axis: int) -> NDArray[np.int_]:
    """Voxels of a mask in each slice across `axis`."""
    return np.count_nonzero(mask, axis=tuple(other for other in range(mask.ndim) if other != axis))


def fullest_slice(mask: Mask, axis: int) -> int:
    """Index of the slice across `axis` that holds most of a mask, the first of several."""
    return int(np.argmax(voxels_per_slice(mask, axis)))


def slices_at_shares(mask: Mask, axis: int, shares: Sequence[float]) -> list[int]:
    """Indices of the slices across `axis` up to and with which given shares (0 to 1) of a mask lie."""
    below = np.cumsum(voxels_per_slice(mask, axis))
    return [int(index) for index in np.searchsorted(below, np.array(shares) * below[-1])]


def slice_at(volume: NDArray[ScalarT], axis: int, index: int) -> NDArray[ScalarT]:
    """One slice across `axis`, a view of the volume."""
    # numpy.take would copy all of a volume that is stored in Fortran's order.
    return np.moveaxis(volume, axis, 0)[index]
