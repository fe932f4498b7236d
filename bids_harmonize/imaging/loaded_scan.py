"""A scan that was read and checked once, for all that is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from nibabel.nifti1 import Nifti1Image

from bids_harmonize.imaging.blocks import Blocks
from bids_harmonize.imaging.foreground import Foreground
from bids_harmonize.imaging.nifti import as_magnitude, open_image, read_voxels, zooms
from bids_harmonize.imaging.types import Volume, Voxels


# Arrays have no truth value, so that scans are equal only to themselves.
@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedScan:
    """A magnitude image in memory.

    Attributes
    ----------
    image
        Its grid and header; its own voxels may be on disk still.
    voxels
        Three axes, float32, all finite and not negative.
    replaced, negative
        Voxels that were set to 0 because they were not finite, and because they were negative.
    """

    image: Nifti1Image
    voxels: Voxels
    replaced: int = 0
    negative: int = 0

    @classmethod
    def of_image(cls, image: Nifti1Image) -> Self:
        """Read the voxels of an image.

        Raises
        ------
        BadData
            The image cannot be read or holds nothing that could be harmonized.
        """
        voxels, replaced, negative = as_magnitude(read_voxels(image))
        return cls(image=image, voxels=voxels, replaced=replaced, negative=negative)

    @cached_property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel size along the array axes, mm."""
        return zooms(self.image)

    @cached_property
    def foreground(self) -> Foreground:
        """Where something was scanned, and its bright value."""
        return Foreground.of(self.voxels, self.zooms)

    @property
    def scale(self) -> float:
        """The bright value of the tissue."""
        return self.foreground.scale

    @cached_property
    def blocks(self) -> Blocks:
        """How the grid is divided where the scan is measured."""
        return Blocks.of(self.voxels.shape, self.zooms)

    @cached_property
    def block_means(self) -> Volume:
        """The means of the blocks."""
        return self.blocks.means(self.voxels)

    def stored_voxels(self) -> Voxels:
        """The voxels as the image has them, also those that are not finite or negative."""
        # Few scans have any: reading those again is cheaper than to hold a second copy of every such scan.
        return read_voxels(self.image) if self.replaced or self.negative else self.voxels


def load_scan(path: Path) -> LoadedScan:
    """Read and check a NIfTI file.

    Raises
    ------
    NoInput, BadData
        As `open_image` and `read_voxels` do.
    """
    return LoadedScan.of_image(open_image(path))
