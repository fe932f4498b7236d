from __future__ import annotations

import os
from pathlib import Path

import pytest
from bids.layout import parse_file_entities
from bids.layout.models import Config
from bids.layout.writing import build_path

from bids_harmonize.bids.output_paths import (
    image_stem,
    inside_dataset,
    output_path,
    prepare_output,
    sidecar_path,
    transform_path,
    unharmonized_path,
)
from bids_harmonize.errors import CannotCreate, UsageError


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_desc-harmonized_T1w.nii.gz"),
        (
            "sub-1/ses-a/anat/sub-1_ses-a_acq-x_run-01_T2w.nii.gz",
            "sub-1/ses-a/anat/sub-1_ses-a_acq-x_run-01_desc-harmonized_T2w.nii.gz",
        ),
        ("sub-1/anat/sub-1_inplaneT2.nii", "sub-1/anat/sub-1_desc-harmonized_inplaneT2.nii.gz"),
        ("sub-1/anat/sub-1_desc-x_run-1_T1w.nii", "sub-1/anat/sub-1_run-1_desc-harmonized_T1w.nii.gz"),
    ],
)
def test_output_names(run_at, source: str, output: str) -> None:
    assert output_path(Path("/out"), run_at(source)) == Path("/out") / output


def test_pybids_builds_the_same_path_as_far_as_its_patterns_go(run_at) -> None:
    patterns = Config.load("derivatives").default_path_patterns
    for name in ("sub-1_T1w", "sub-1_ses-a_acq-x_ce-gd_rec-n_T2w", "sub-1_run-1_T1w", "sub-1_run-2_T1w"):
        entities = parse_file_entities(f"/x/{name}.nii.gz") | {"desc": "harmonized", "datatype": "anat"}
        folders = "/".join(part for part in name.split("_") if part.startswith(("sub-", "ses-")))
        path = output_path(Path("/out"), run_at(f"{folders}/anat/{name}.nii.gz")).relative_to("/out")
        built = build_path(entities, patterns)
        # They have no `run`: two scans would become one file.
        assert (
            str(path) == built
            if "run" not in entities
            else built == "sub-1/anat/sub-1_desc-harmonized_T1w.nii.gz"
        )


def test_images_that_are_passed_through_have_a_name_of_their_own(run_at) -> None:
    run = run_at("sub-1/ses-a/anat/sub-1_ses-a_desc-x_T2w.nii")
    expected = "/out/sub-1/ses-a/anat/sub-1_ses-a_desc-unharmonized_T2w.nii.gz"
    assert unharmonized_path(Path("/out"), run) == Path(expected)


def test_files_beside_an_output() -> None:
    output = Path("/out/sub-1_desc-harmonized_T1w.nii.gz")
    assert sidecar_path(output) == Path("/out/sub-1_desc-harmonized_T1w.json")
    assert transform_path(output) == Path("/out/sub-1_desc-harmonized_T1w_curves.safetensors")


def test_the_output_folder_is_made_and_left_empty(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "a" / "b"
    prepare_output(output, dataset, work_dir=tmp_path / "work")
    assert list(output.iterdir()) == []


def snapshot(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize(
    "inside", [".", "out", "derivatives", "sub-1/../derivatives", "sub-1/derivatives/x", "code/x"]
)
def test_the_input_is_never_written_to(dataset: Path, inside: str) -> None:
    (dataset / "sub-1").mkdir()
    before = snapshot(dataset)
    with pytest.raises(UsageError, match="output folder"):
        prepare_output(dataset / inside, dataset)
    assert snapshot(dataset) == before


def test_links_to_the_input_are_seen_through(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(dataset)
    for output, source in (
        (tmp_path / "link", dataset),
        (dataset, tmp_path / "link"),
        (tmp_path / "link/x", dataset),
    ):
        with pytest.raises(UsageError):
            prepare_output(output, source)


@pytest.mark.parametrize("inside", ["derivatives/bids-harmonize", "derivatives/mine", "derivatives/a/b"])
def test_derivatives_of_the_input_are_allowed(dataset: Path, inside: str) -> None:
    prepare_output(dataset / inside, dataset)
    assert (dataset / inside).is_dir()


def test_an_output_that_contains_the_input_is_allowed(dataset: Path) -> None:
    prepare_output(dataset.parent, dataset)
    assert inside_dataset(dataset.parent, dataset) is None


def test_a_folder_whose_name_begins_like_the_input_is_outside(dataset: Path) -> None:
    assert inside_dataset(dataset.with_name("raw2"), dataset) is None
    assert inside_dataset(dataset / "derivatives" / "x", dataset) == ("derivatives", "x")


@pytest.mark.parametrize("work", [".", "work", "derivatives/work"])
def test_the_work_folder_is_outside_the_input(dataset: Path, tmp_path: Path, work: str) -> None:
    with pytest.raises(UsageError, match="work folder"):
        prepare_output(tmp_path / "out", dataset, work_dir=dataset / work)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_or_lies_in_one(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for output in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(CannotCreate, match="file"):
            prepare_output(output, dataset)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_output_without_permission(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    with pytest.raises(CannotCreate, match="Permission denied"):
        prepare_output(tmp_path / "out", dataset)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.nii.gz", "a"), ("a.nii", "a"), ("a.b.nii.gz", "a.b"), ("a.gz", None), ("nii", None)],
)
def test_image_stem(name: str, stem: str | None) -> None:
    assert image_stem(name) == stem
