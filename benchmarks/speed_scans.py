"""Phantoms of many sizes for the measurements of speed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from intensity_normalization import NyulNormalizer, create_image

from bids_harmonize.phantom.anatomy import PHANTOM_LABELS, Head, head_labels
from bids_harmonize.phantom.scanner import Receiver, render
from bids_harmonize.phantom.space import Grid, Vector
from bids_harmonize.simulation.protocols import Protocol

#: Lower corner and side of the cube that holds the head, mm.
LOW_CORNER, EXTENT = (-108.0, -106.0, -126.0), 216.0
CUBES = (64, 128, 256, 384, 512)
SHAPES = {"head": (256, 256, 192), "thick": (256, 256, 30)}
T1W_PROTOCOL = Protocol(field_strength=3.0, sequence="MPRAGE", tr=2300, te=2.98, ti=900, flip_angle=9)
RECEIVER = Receiver(gain=1600, snr=35, shading=0.12)
BRAIN_TISSUES = ("white matter", "grey matter", "deep grey matter", "csf")


@dataclass(frozen=True, kw_only=True)
class Files:
    """A scan, the mask of its brain, and the standard histogram of Nyúl fitted to it."""

    size: str
    voxels: int
    image: Path
    mask: Path
    standard: Path


def grid_of(size: str) -> Grid:
    """The grid of a size, which is a number of voxels along the side of a cube, or a name of `SHAPES`.

    The field of view is the same for all sizes.
    """
    shape = SHAPES[size] if size in SHAPES else (int(size),) * 3
    x, y, z = (EXTENT / n for n in shape)
    low: Vector = LOW_CORNER
    return Grid(zooms=(x, y, z), low=low, high=(low[0] + EXTENT, low[1] + EXTENT, low[2] + EXTENT))


def voxels_of(size: str) -> int:
    """How many voxels a scan of a size has."""
    return int(np.prod(grid_of(size).shape))


def write_scan(folder: Path, size: str, head: Head | None = None) -> Files:
    """Draw a scan and its mask, and fit Nyúl, which needs a group, to this scan alone."""
    head = head or head_labels(0)
    grid = grid_of(size)
    scan = np.rint(render(head, T1W_PROTOCOL, grid, RECEIVER, seed=(0,))).astype(np.int16)
    brain = np.isin(head.labels_on(grid), [PHANTOM_LABELS.index(name) for name in BRAIN_TISSUES])
    files = Files(
        size=size,
        voxels=scan.size,
        image=folder / f"{size}_T1w.nii.gz",
        mask=folder / f"{size}_mask.nii.gz",
        standard=folder / f"{size}_standard.npy",
    )
    nib.save(nib.Nifti1Image(scan, grid.affine), files.image)
    nib.save(nib.Nifti1Image(brain.astype(np.uint8), grid.affine), files.mask)
    fitted = NyulNormalizer().fit_population([create_image(scan)], [create_image(brain)])
    fitted.save_standard_histogram(str(files.standard))
    return files


def size_label(size: str) -> str:
    """A size as a table shows it."""
    return " × ".join(map(str, SHAPES[size])) if size in SHAPES else f"{size}³"
