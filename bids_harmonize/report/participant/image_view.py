"""A scan as its figures show it: axes towards right, anterior and superior, and where there is tissue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from bids_harmonize.errors import BadData
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.loaded_scan import LoadedScan
from bids_harmonize.imaging.masks import tissue_mask
from bids_harmonize.imaging.nifti import zooms
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.model.bilateral_grid import CELL_MM
from bids_harmonize.model.edit_summary import MAX_SAMPLE


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageView:
    """One image of a scan; what several figures need is found once.

    Attributes
    ----------
    volume
        ``(right, anterior, superior)``.
    zooms
        Voxel size in mm along these axes.
    sampled
        The planes that are looked at for tissue: of a large volume not all.
    tissue
        The tissue in those.
    """

    volume: Volume
    zooms: tuple[float, float, float]
    sampled: tuple[slice, ...]
    tissue: Mask

    @classmethod
    def of_scan(cls, scan: LoadedScan) -> ImageView:
        """The view of a derivative, whose tissue is that of the original as well."""
        volume, size = _canonical(scan)
        sampled = _sampled_planes(volume.shape, size)
        distances = [zoom * (along.step or 1) for zoom, along in zip(size, sampled, strict=True)]
        return cls(volume=volume, zooms=size, sampled=sampled, tissue=tissue_mask(volume[sampled], distances))

    def of_original(self, scan: LoadedScan) -> ImageView:
        """The view of the original of this image, in the same tissue.

        Raises
        ------
        BadData
            It has another shape.
        """
        volume, size = _canonical(scan)
        if volume.shape != self.volume.shape:
            path, shape = scan.image.get_filename(), self.volume.shape
            raise BadData(f"{path} has {volume.shape} voxels, its derivative {shape}; harmonize it again")
        return ImageView(volume=volume, zooms=size, sampled=self.sampled, tissue=self.tissue)

    @cached_property
    def scale(self) -> float:
        """The 99th percentile of the foreground (`imaging.intensity.intensity_scale`)."""
        return intensity_scale(self.volume)

    @cached_property
    def tissue_values(self) -> NDArray[np.float32]:
        """Intensities of the tissue in the planes that are looked at."""
        return self.volume[self.sampled][self.tissue]


def _canonical(scan: LoadedScan) -> tuple[Volume, tuple[float, float, float]]:
    """Voxels, and their size, with axes as near to right, anterior, superior as they can be."""
    image = Nifti1Image(scan.voxels, scan.image.affine, scan.image.header)
    canonical = nib.as_closest_canonical(image)
    return np.asarray(canonical.dataobj, dtype=np.float32), zooms(canonical)


def _sampled_planes(shape: Sequence[int], size: Sequence[float]) -> tuple[slice, ...]:
    """Planes at equal distances across the longest axis: enough of a large volume, but some of every cell."""
    longest = int(np.argmax(shape))
    step = max(1, min(round(math.prod(shape) / MAX_SAMPLE), int(CELL_MM / size[longest])))
    return tuple(slice(None, None, step if axis == longest else None) for axis in range(3))
