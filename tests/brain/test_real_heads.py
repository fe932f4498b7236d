"""Brains of real scans of several contrasts and sites, and of simulated heads with a known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scans import shared_folder
from benchmarks.simulated import Subject
from bids_harmonize.brain.search import find_brain
from bids_harmonize.imaging.brain import Brain, NoBrain
from bids_harmonize.imaging.loaded_scan import LoadedScan, load_scan
from bids_harmonize.model.contrast_detector import taken_for
from bids_harmonize.simulation.label_heads import Head

DATA = shared_folder() / "data"
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not DATA.is_dir(), reason="the shared folder of scans is not here"),
]


def scan_of(pattern: str) -> LoadedScan:
    return load_scan(next(iter(sorted(DATA.glob(pattern)))))


def searched(scan: LoadedScan) -> Brain | NoBrain:
    return find_brain(scan.block_means, scan.blocks.zooms, scan.image.affine)


@pytest.mark.parametrize(
    ("pattern", "contrast"),
    [
        # Thick slices, and fat that outshines the brain.
        ("pairs/sub-ms12/ses-1/anat/*_T1w.nii.gz", "T1w"),
        # Without receive-coil correction.
        ("reference/sub-08/anat/*_T2w.nii.gz", "T2w"),
        ("sites/sub-child10/anat/*_T1w.nii.gz", "T1w"),
        # Skull-stripped.
        ("sites/sub-dep52/anat/*_T1w.nii.gz", "T1w"),
        ("lesions/sub-ms07/anat/*_T2w.nii.gz", "T2w"),
        ("flair/sub-ms19/ses-2/anat/*_FLAIR.nii.gz", "FLAIR"),
    ],
)
def test_brains_of_people(pattern: str, contrast: str) -> None:
    scan = scan_of(pattern)
    brain = searched(scan)
    assert isinstance(brain, Brain), brain
    assert 900 < np.count_nonzero(brain.mask) * np.prod(brain.zooms) / 1000 < 1900
    assert taken_for(brain.levels(scan.block_means)) == contrast


def test_a_prostate_has_no_brain() -> None:
    assert isinstance(searched(scan_of("prostate/sub-p3t2/anat/*_T2w.nii.gz")), NoBrain)


@pytest.mark.parametrize(
    ("modality", "protocol"),
    [("T1w", "MPRAGE 3 T"), ("T1w", "spin echo 1.5 T"), ("T2w", "1.5 T, 3000/125")],
)
def test_the_brain_of_a_simulated_head_is_that_of_its_label_map(modality: str, protocol: str) -> None:
    head = Head.read(Path(DATA / "labels" / "head-09_dseg.nii.gz"))
    scan = Subject.of(head, modality).scan(protocol)
    brain = find_brain(scan.volume, scan.zooms, scan.affine)
    assert isinstance(brain, Brain), brain
    overlap = 2 * np.count_nonzero(brain.mask & scan.brain)
    assert overlap / (np.count_nonzero(brain.mask) + np.count_nonzero(scan.brain)) > 0.9
