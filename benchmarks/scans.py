"""Scans with the masks that methods and metrics need, and where they are read from."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.splits import HELD_OUT, PROSTATE_HELD_OUT
from bids_harmonize.brain.search import find_brain
from bids_harmonize.imaging.brain import NoBrain
from bids_harmonize.imaging.masks import head_mask, middle_tissue, tissue_mask
from bids_harmonize.imaging.nifti import as_magnitude, open_image, read_voxels

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

ROOT = Path(__file__).parents[1]
#: Real scans are averaged to voxels of about this size.
AVERAGED_MM = 2.0
#: Air that is kept around a head.
MARGIN_MM = 16.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """One scan as every method sees it.

    Attributes
    ----------
    name
        Unique in a run: harmonized volumes are kept by it.
    participant, site
        Whose scan it is, and where it was made; for a simulated scan the head and the protocol.
    volume
        ``(x, y, z)`` float32, axes right, anterior, superior.
    head, brain
        Masks: automatic ones of real scans, the true ones of simulated scans. For a prostate they are what
        is brighter than air, and the middle of it.
    prostate
        Whether the scan shows a prostate, not a head.
    truth
        For simulated scans: shares of "white matter" and "grey matter", the "reference" rendering, and the
        receive "field".
    """

    name: str
    participant: str
    site: str
    modality: str
    volume: Volume
    zooms: tuple[float, float, float]
    affine: NDArray[np.float64]
    head: Mask
    brain: Mask
    truth: Mapping[str, Volume] = field(default_factory=dict)
    prostate: bool = False

    @property
    def image(self) -> Nifti1Image:
        """The scan as an image in memory."""
        return Nifti1Image(self.volume, self.affine)


def shared_folder() -> Path:
    """Where the real scans and label maps are: `BIDS_HARMONIZE_SHARED`, or beside the checkout."""
    return Path(os.environ.get("BIDS_HARMONIZE_SHARED") or ROOT.parent / "shared")


def read_scan(path: Path, site: str, *, native: bool = False) -> Scan:
    """A scan by its BIDS file name, cropped to the head, with automatic masks.

    Averaged to voxels of up to 2 mm, or `native`; masks are found at 2 mm, which is as exact as they get.
    """
    volume, affine, sizes = _read(path)
    steps = [max(1, int(AVERAGED_MM / zoom + 0.01)) for zoom in sizes]
    coarse = averaged(volume, steps)
    coarse_sizes = [zoom * step for zoom, step in zip(sizes, steps, strict=True)]
    head, brain = head_mask(coarse), _brain_mask(coarse, coarse_sizes, affine)
    if native:
        head, brain = (_enlarged(mask, steps, volume.shape) for mask in (head, brain))
    else:
        affine = affine @ nib.affines.from_matvec(np.diag(np.array(steps, float)), (np.array(steps) - 1) / 2)
        volume, sizes = coarse, coarse_sizes
    box = box_around(head, sizes, MARGIN_MM)
    name = _stem(path)
    return Scan(
        name=name,
        participant=name.split("_")[0],
        site=site,
        modality=name.split("_")[-1],
        volume=np.ascontiguousarray(volume[box]),
        zooms=(sizes[0], sizes[1], sizes[2]),
        affine=affine @ nib.affines.from_matvec(np.eye(3), [axis.start for axis in box]),
        head=head[box],
        brain=brain[box],
    )


def _brain_mask(volume: Volume, sizes: Sequence[float], affine: NDArray[np.float64]) -> Mask:
    """The brain; empty where none is found."""
    brain = find_brain(volume, (sizes[0], sizes[1], sizes[2]), affine)
    return np.zeros(volume.shape, dtype=bool) if isinstance(brain, NoBrain) else brain.mask


def read_prostate(path: Path) -> Scan:
    """A scan of the prostate at its full resolution."""
    volume, affine, (x, y, z) = _read(path)
    name = _stem(path)
    return Scan(
        name=name,
        participant=name.split("_")[0],
        site="reference",
        modality=name.split("_")[-1],
        volume=volume,
        zooms=(x, y, z),
        affine=affine,
        head=tissue_mask(volume, (x, y, z)),
        brain=middle_tissue(volume, (x, y, z)),
        prostate=True,
    )


def _read(path: Path) -> tuple[Volume, NDArray[np.float64], list[float]]:
    """Voxels with axes right, anterior, superior, their affine, and their sizes in mm."""
    image = nib.as_closest_canonical(open_image(path))
    return (
        as_magnitude(read_voxels(image))[0],
        image.affine,
        [float(zoom) for zoom in image.header.get_zooms()[:3]],
    )


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def averaged(volume: Volume, steps: Sequence[int]) -> Volume:
    """Means over blocks; the last one of an axis is filled up with its last plane."""
    missing = [(0, -n % step) for n, step in zip(volume.shape, steps, strict=True)]
    padded = np.pad(volume, missing, mode="edge")
    blocks = [part for n, step in zip(padded.shape, steps, strict=True) for part in (n // step, step)]
    return np.asarray(padded.reshape(blocks).mean(axis=(1, 3, 5)), dtype=np.float32)


def box_around(mask: Mask, zooms: Sequence[float], margin_mm: float) -> tuple[slice, ...]:
    """The box of a mask with a margin, as far as the volume reaches: what lies beyond only takes time."""
    (extent,) = ndimage.find_objects(mask.astype(np.int8))
    margins = [round(margin_mm / zoom) for zoom in zooms]
    return tuple(
        slice(max(0, axis.start - margin), axis.stop + margin)
        for axis, margin in zip(extent, margins, strict=True)
    )


def _enlarged(mask: Mask, steps: Sequence[int], shape: Sequence[int]) -> Mask:
    for axis, step in enumerate(steps):
        mask = mask.repeat(step, axis=axis)
    return mask[tuple(slice(n) for n in shape)]


@dataclass(frozen=True, kw_only=True)
class RealScans:
    """The scans of one modality in the shared folder, read when they are first asked for."""

    shared: Path
    modality: str
    native: bool = False
    prostate: bool = False

    @cached_property
    def _group(self) -> list[Scan]:
        if self.prostate:
            folder = self.shared / "data" / "prostate"
            return [read_prostate(path) for path in sorted(folder.glob("sub-*/anat/*_T2w.nii.gz"))]
        return self._read(self.shared / "data" / "reference", {})

    @property
    def _held_out(self) -> str:
        return PROSTATE_HELD_OUT if self.prostate else HELD_OUT

    @property
    def reference(self) -> list[Scan]:
        """The reference group, without the participant that was held out."""
        return [scan for scan in self._group if scan.participant != self._held_out]

    @property
    def held_out(self) -> list[Scan]:
        """The scan of the held-out participant."""
        return [scan for scan in self._group if scan.participant == self._held_out]

    @cached_property
    def sites(self) -> list[Scan]:
        """Scans of other sites; there are none of the prostate."""
        if self.prostate:
            return []
        folder = self.shared / "data" / "sites"
        with (folder / "participants.tsv").open(encoding="utf-8") as table:
            rows = list(csv.DictReader(table, delimiter="\t"))
        return self._read(folder, {row["participant_id"]: row["site"] for row in rows})

    def _read(self, folder: Path, sites: Mapping[str, str]) -> list[Scan]:
        paths = sorted(folder.glob(f"sub-*/anat/*_{self.modality}.nii.gz"))
        return [read_scan(path, sites.get(path.parts[-3], "reference"), native=self.native) for path in paths]
