"""Blocks of about 2 mm, on whose means scans are measured: masks are as exact on them as they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from bids_harmonize.imaging.types import Mask, Volume

WORKING_MM = 2.0


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How a grid is divided.

    Attributes
    ----------
    steps
        Voxels in a block along each axis; those left over at the ends are left out.
    zooms
        Size of a block, mm.
    """

    steps: tuple[int, int, int]
    zooms: tuple[float, float, float]

    @classmethod
    def of(cls, shape: Sequence[int], zooms: Sequence[float]) -> Self:
        """Divide a grid.

        Parameters
        ----------
        shape, zooms
            Number and size in mm of the voxels along each axis.
        """
        x, y, z = (max(1, min(round(WORKING_MM / zoom), n)) for zoom, n in zip(zooms, shape, strict=True))
        return cls(steps=(x, y, z), zooms=(x * zooms[0], y * zooms[1], z * zooms[2]))

    def means(self, volume: Volume) -> Volume:
        """The mean of every block."""
        return block_means(volume, self.steps)

    def whole(self, mask: Mask, shape: Sequence[int]) -> Mask:
        """A mask of blocks on the grid that was divided; what is left over at the ends is outside."""
        voxels = mask
        for axis, step in enumerate(self.steps):
            voxels = np.repeat(voxels, step, axis)
        ends = [(0, n - m) for n, m in zip(shape, voxels.shape, strict=True)]
        return np.pad(voxels, ends)


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
