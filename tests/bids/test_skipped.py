"""Nobody is lost without a word: who has no run is named, with the reason, once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bids_harmonize.bids.filters import Filters
from bids_harmonize.bids.query import select_runs
from bids_harmonize.bids.skipped import find_skipped


def skipped(dataset: Path, **asked: object) -> dict[str, str]:
    filters = Filters(**asked)  # type: ignore[arg-type]
    found = find_skipped(dataset, filters, select_runs(dataset, filters))
    assert len({one.name for one in found}) == len(found)
    return {one.name: one.reason for one in found}


@pytest.fixture
def ok(dataset: Path, add) -> Path:
    add("sub-ok/anat/sub-ok_T1w.nii.gz")
    return dataset


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sub-WMH_MRI_21_01H/anat/sub-WMH_MRI_21_01H_T1w.nii.gz", "'MRI' in its name is no entity of BIDS"),
        ("sub-a/anat/sub-a_T1W.nii.gz", "its suffix T1W is none that BIDS has"),
        ("sub-a/anat/sub-a_T1w.NII.GZ", "its ending must be .nii or .nii.gz in lower case"),
        ("sub-a/anat/sub-a_T2w_brain.nii.gz", "its suffix brain is none that BIDS has"),
        ("sub-a/ses-1/anat/sub-a_ses-1_defaced_T1w.nii", "'defaced' in its name is no entity"),
        ("sub-a/anat/sub-a_run-1_run-2_T1w.nii.gz", "its name is no entity of BIDS"),
    ],
)
def test_an_image_that_looks_like_a_scan_is_named(ok: Path, add, name: str, reason: str) -> None:
    add(name)
    (found,) = skipped(ok).items()
    assert found[0] == name
    assert found[1].startswith(reason)
    assert found[1].endswith("; rename it")


def test_such_an_image_is_named_beside_good_ones(ok: Path, add) -> None:
    add("sub-ok/anat/sub-ok_T1W.nii.gz")
    assert list(skipped(ok)) == ["sub-ok/anat/sub-ok_T1W.nii.gz"]


def test_participants_without_a_scan_are_named_with_the_reason(ok: Path, add) -> None:
    (ok / "sub-empty").mkdir()
    os.symlink("/nowhere/sub-link", ok / "sub-link")
    add("sub-func/func/sub-func_bold.nii.gz")
    (ok / "participants.tsv").write_text("participant_id\nsub-ok\nsub-absent\nsub-empty\n")
    found = skipped(ok)
    assert list(found) == ["sub-absent", "sub-empty", "sub-func", "sub-link"]
    assert "no such folder" in found["sub-absent"]
    assert "is empty" in found["sub-empty"]
    assert "no T1w or T2w image" in found["sub-func"]
    assert "link to nowhere" in found["sub-link"]


def test_only_who_was_asked_for_is_named(ok: Path) -> None:
    (ok / "sub-empty").mkdir()
    assert list(skipped(ok, participants=("ok",))) == []
    assert list(skipped(ok, excluded=("empty",))) == []
    assert list(skipped(ok, participants=("ok", "empty"))) == ["sub-empty"]


def test_who_has_other_images_than_those_asked_for(ok: Path, add) -> None:
    add("sub-t2/anat/sub-t2_T2w.nii.gz")
    assert skipped(ok, modalities=("T1w",)) == {"sub-t2": "none of its images match the filters"}
    assert skipped(ok) == {}


def test_scans_of_phase_and_hidden_files_are_no_loss(ok: Path, add) -> None:
    add("sub-ok/anat/sub-ok_part-phase_T1w.nii.gz")
    add("sub-ok/anat/._sub-ok_T1w.nii.gz")
    assert skipped(ok) == {}


def test_a_table_that_cannot_be_read_hides_nobody(ok: Path) -> None:
    (ok / "participants.tsv").write_bytes(b"\xff\xfe")
    (ok / "sub-empty").mkdir()
    assert list(skipped(ok)) == ["sub-empty"]


def test_a_label_of_the_table_leads_nowhere(ok: Path, tmp_path: Path, add) -> None:
    outside = ok.parent / "sub-x" / "anat"
    outside.mkdir(parents=True)
    (outside / "sub-x_T1W.nii.gz").touch()
    (ok / "participants.tsv").write_text("participant_id\nsub-ok\nsub-/../../sub-x\n")
    (found,) = skipped(ok).items()
    assert found[0] == "sub-/../../sub-x"
    assert "no such folder" in found[1]
