"""The scans that a reference group is chosen from."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib

from bids_harmonize.bids.body_part import body_part_of
from bids_harmonize.bids.input_metadata import read_metadata
from bids_harmonize.bids.run import Run
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.imaging.body_part import HEAD_TERMS, shows_brain
from bids_harmonize.imaging.loaded_scan import LoadedScan
from bids_harmonize.imaging.nifti import open_image, zooms
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.training.reference_group import ReferenceScan, measure_scan

# Voxels of simulated heads, mm.
SIMULATED_VOXELS = {"T1w": [(2, 2, 2)], "T2w": [(2, 2, 2), (2, 2, 5)], "FLAIR": [(2, 2, 2), (2, 2, 5)]}


def trained_body_part(run: Run) -> str:
    """The body part of a run in its sidecar: ``HEAD`` for all terms of the head, and where none is stated."""
    part = body_part_of(read_metadata(run)) or HEAD_TERMS[0]
    return HEAD_TERMS[0] if shows_brain([part]) else part


def read_heads(folder: Path, modality: str) -> list[Head]:
    """Heads of all label maps in a folder, at 2 mm; for T2w and FLAIR also in thick slices, as is common.

    Raises
    ------
    NoInput
        There is no label map.
    """
    paths = sorted(folder.glob("*_dseg.nii.gz"))
    if not paths:
        raise NoInput(f"{folder} holds no label maps (*_dseg.nii.gz)")
    return [Head.read(path, factors) for path in paths for factors in SIMULATED_VOXELS[modality]]


def load_candidate(run: Run, modality: str, body_part: str = "HEAD") -> ReferenceScan:
    """Read a candidate in the orientation in which the network works (RAS)."""
    scan = LoadedScan.of_image(nib.as_closest_canonical(open_image(run.path)))
    name = run.path.name.split(".")[0]
    try:
        return measure_scan(name, scan.voxels, zooms(scan.image, run.path), modality, body_part)
    except BadData as error:
        raise BadData(f"{run.path}: {error}") from error
