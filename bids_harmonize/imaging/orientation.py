"""Volumes turned so that their axes point to the right, to the front and to the top (RAS), and back."""

from __future__ import annotations

from typing import TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)
Affine = NDArray[np.float64]


def ras_axes(affine: Affine) -> tuple[list[int], list[int]]:
    """Array axes in the order right, anterior, superior, and those of the new axes that must be flipped."""
    orientation = nib.orientations.io_orientation(affine)
    order = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3)]
    flips = [axis for axis in range(3) if orientation[order[axis], 1] < 0]
    return order, flips


def to_ras(volume: NDArray[Scalar], affine: Affine) -> NDArray[Scalar]:
    """A view of a volume whose axes run right, anterior, superior, as nearly as its own let it."""
    order, flips = ras_axes(affine)
    return np.flip(volume.transpose(order), tuple(flips))


def from_ras(volume: NDArray[Scalar], affine: Affine) -> NDArray[Scalar]:
    """The reverse of `to_ras`."""
    order, flips = ras_axes(affine)
    return np.flip(volume, tuple(flips)).transpose([order.index(axis) for axis in range(3)])
