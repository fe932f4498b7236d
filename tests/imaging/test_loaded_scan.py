"""A scan is read once; what it had to be changed for is known."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.loaded_scan import LoadedScan, load_scan
from tests.helpers.toy_datasets import head, image_of


def test_what_no_magnitude_image_holds_is_replaced_and_counted(tmp_path: Path) -> None:
    voxels = head(1).astype(np.float32)
    voxels[0, 0, :3], voxels[1, 0, :2] = np.nan, -3
    nib.save(image_of(voxels, (1.0, 2.0, 3.0)), tmp_path / "scan.nii.gz")
    scan = load_scan(tmp_path / "scan.nii.gz")
    assert (scan.replaced, scan.negative) == (3, 2)
    np.testing.assert_array_equal(scan.voxels, np.maximum(np.nan_to_num(voxels), 0))
    np.testing.assert_array_equal(scan.stored_voxels(), voxels)
    assert scan.zooms == pytest.approx((1, 2, 3))
    assert scan.scale == intensity_scale(scan.voxels)


def test_what_needs_no_change_is_not_copied() -> None:
    scan = LoadedScan.of_image(image_of(head(1).astype(np.float32)))
    assert (scan.replaced, scan.negative) == (0, 0)
    assert scan.stored_voxels() is scan.voxels


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoInput, match=r"scan\.nii"):
        load_scan(tmp_path / "scan.nii")
    with pytest.raises(BadData):
        LoadedScan.of_image(image_of(np.zeros((4, 4, 4), np.float32)))
