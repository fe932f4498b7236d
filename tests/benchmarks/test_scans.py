"""Reading scans for the benchmark: places are kept, masks are of head and brain."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.data import PROSTATE, Data
from benchmarks.scans import RealScans, averaged, read_scan, shared_folder
from benchmarks.tiers.intensities import WHITE_MATTER, as_it_is
from bids_harmonize.phantom.anatomy import Head
from bids_harmonize.phantom.scanner import Receiver, render
from bids_harmonize.phantom.space import Grid
from tests.helpers.toy_heads import MPRAGE

pytestmark = pytest.mark.benchmark

SHARED = shared_folder() / "data"
real = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real scans in {SHARED}")


@pytest.fixture(scope="module")
def volume(head: Head) -> NDArray[np.float32]:
    grid = Grid(zooms=(3.0, 3.0, 3.0))
    return render(head, MPRAGE, grid, Receiver(gain=500, snr=40, shading=0.1), seed=(3,))


def test_means_over_blocks_by_hand() -> None:
    volume = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    # The third row of y is filled up with itself.
    assert averaged(volume, (2, 2, 1))[0, :, 0] == pytest.approx([8, 14])
    assert averaged(volume, (1, 1, 1)) == pytest.approx(volume)


@pytest.mark.parametrize("native", [False, True])
def test_a_voxel_stays_at_its_place(volume: NDArray[np.float32], tmp_path: Path, native: bool) -> None:
    marked = volume.copy()
    place = tuple(n // 2 for n in volume.shape)
    marked[place] = 20 * volume.max()
    affine = np.array([[-1.5, 0, 0, 40], [0, 0, 1, -20], [0, -1, 0, 30], [0, 0, 0, 1]], dtype=float)
    path = tmp_path / "sub-1_T1w.nii.gz"
    nib.Nifti1Image(marked, affine).to_filename(path)
    scan = read_scan(path, "here", native=native)
    found = np.unravel_index(int(np.argmax(scan.volume)), scan.volume.shape)
    wanted, got = affine @ [*place, 1], scan.affine @ [*found, 1]
    assert np.abs(wanted - got).max() <= (0.01 if native else 0.51)
    assert scan.zooms == pytest.approx((1.5, 1, 1) if native else (1.5, 2, 2))
    assert (scan.name, scan.participant, scan.site, scan.modality) == ("sub-1_T1w", "sub-1", "here", "T1w")


@real
def test_the_left_out_person_is_in_no_group() -> None:
    scans = RealScans(shared=SHARED.parent, modality="T2w")
    assert len(scans.reference) == 13
    assert [scan.participant for scan in scans.held_out] == ["sub-08"]
    assert "sub-08" not in {scan.participant for scan in scans.reference}


@real
def test_every_method_gets_the_group_as_it_was_brought_to_another_echo_time() -> None:
    plain = Data(shared=SHARED.parent, modality="T2w")
    brought = Data(shared=SHARED.parent, modality="T2w", echo_times=(60, 100))
    for before, after in zip(plain.held_out, brought.held_out, strict=True):
        # A longer echo: fluid brighter against white matter, and no voxel out of order.
        spread = [np.subtract(*np.percentile(scan.volume[scan.brain], [99, 25])) for scan in (before, after)]
        median = [np.median(scan.volume[scan.brain]) for scan in (before, after)]
        assert spread[1] / median[1] > 1.2 * spread[0] / median[0]
        order = np.argsort(before.volume[before.brain])
        assert np.all(np.diff(after.volume[after.brain][order]) >= 0)


@real
def test_prostates_are_measured_at_the_middle_of_the_field_of_view() -> None:
    data = Data(shared=SHARED.parent, modality=PROSTATE)
    assert len(data.reference) == 6 and data.sites == []
    (scan,) = data.held_out
    assert scan.participant == "sub-p3t3"
    middle = np.argwhere(scan.brain).mean(axis=0) / scan.volume.shape
    assert middle == pytest.approx([0.5] * 3, abs=0.05)
    assert as_it_is(scan).white == pytest.approx(WHITE_MATTER)
    assert np.isnan(as_it_is(scan).grey)
