"""Which results a report is on."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from bids_harmonize.bids.filters import Filters
from bids_harmonize.results.selection import images_without_sidecar, labels_without_result, wants

SCAN = PurePosixPath("sub-01/ses-a/anat/sub-01_ses-a_acq-fast_T1w.nii.gz")


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (Filters(), True),
        (Filters(participants=("01",)), True),
        (Filters(participants=("sub-02",)), False),
        (Filters(excluded=("sub-01",)), False),
        (Filters(sessions=("a", "b")), True),
        (Filters(sessions=("b",)), False),
        (Filters(modalities=("T2w",)), False),
        (Filters(bids_filters={"t1w": {"acquisition": "fast"}}), True),
        (Filters(bids_filters={"t1w": {"acquisition": None}}), False),
    ],
)
def test_a_scan_is_wanted_as_at_the_participant_level(filters: Filters, wanted: bool) -> None:
    assert wants(filters, SCAN) is wanted


def test_a_name_that_is_not_bids_is_in_the_report() -> None:
    assert wants(Filters(participants=("01",)), PurePosixPath("sub-01/anat/renamed.nii.gz"))


def test_what_there_is_nothing_of(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "ses-a" / "anat"
    folder.mkdir(parents=True)
    (folder / "sub-01_ses-a_desc-harmonized_T1w.json").touch()
    filters = Filters(participants=("01", "sub-02"), sessions=("ses-a", "c"))
    assert labels_without_result(tmp_path, filters) == ["sub-02", "ses-c"]
    assert labels_without_result(tmp_path, Filters()) == []


def test_images_whose_sidecar_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "anat"
    folder.mkdir(parents=True)
    for name in ("sub-01_run-1_desc-harmonized_T1w", "sub-01_run-2_desc-unharmonized_T1w"):
        (folder / f"{name}.nii.gz").touch()
    (folder / "sub-01_run-1_desc-harmonized_T1w.json").touch()
    alone = folder / "sub-01_run-2_desc-unharmonized_T1w.nii.gz"
    assert images_without_sidecar(tmp_path, Filters()) == [alone]
    assert images_without_sidecar(tmp_path, Filters(participants=("02",))) == []
