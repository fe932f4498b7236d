from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from bids_harmonize.bids.dataset_files import write_dataset_files
from bids_harmonize.bids.derivatives import sidecar, source_uri
from bids_harmonize.bids.filters import Filters
from bids_harmonize.bids.input_metadata import INHERITED, read_metadata
from bids_harmonize.bids.logs import write_crash, write_run_log
from bids_harmonize.bids.output_paths import output_path, prepare_output, sidecar_path, transform_path
from bids_harmonize.bids.query import select_runs
from bids_harmonize.files.atomic import write_atomically, write_json
from bids_harmonize.files.schema import is_flag, is_number, is_positive, is_text
from tests.helpers.bids_validation import problems

pytestmark = pytest.mark.process

METADATA = {
    "Manufacturer": "Siemens",
    "MagneticFieldStrength": 3,
    "EchoTime": [0.01, 0.02],
    "FlipAngle": 9,
    "ScanningSequence": ["GR", "IR"],
    "MRAcquisitionType": "3D",
    "Units": "arbitrary",
}


NAME = "sub-1_T1w.nii"
SOURCE = "bids:raw:sub-1/anat/sub-1_T1w.nii"
# What is said of the derivative itself, and never of its source.
OWN = {"Description", "Sources", "BidsHarmonize"}
# A value of every field that a source can state; each differs from what is found or constant.
STATED: dict[str, object] = {
    **{key: key.lower() for key, fits in INHERITED.items() if fits is is_text},
    **{key: ["a", "b"] for key in ("ScanningSequence", "SequenceVariant", "ScanOptions")},
    **{key: True for key, fits in INHERITED.items() if fits is is_flag},
    **{key: 0.25 for key, fits in INHERITED.items() if fits in (is_number, is_positive)},
    "FlipAngle": 9,
    "ContrastBolusIngredient": "GADOLINIUM",
    "MRAcquisitionType": "3D",
    "PhaseEncodingDirection": "j-",
    "SpatialReference": "https://example.org/template.nii.gz",
    "Resolution": "2 mm",
    "Units": "arbitrary",
}


def content(metadata: Mapping[str, object], name: str = NAME, *, found: bool = False, **changes: Any) -> dict:
    arguments = {"suffix": "T1w", "source": SOURCE, "harmonized": True, "provenance": {"Version": "1"}}
    return sidecar(metadata, name=name, skull_stripped=found, **arguments | changes)


def test_the_sidecar_says_what_and_from_what() -> None:
    written = content({"EchoTime": 0.01, "SkullStripped": True})
    assert written.pop("Description").startswith("T1w")
    assert written == {
        "Sources": [SOURCE],
        "SpatialReference": "orig",
        "SkullStripped": True,
        "EchoTime": 0.01,
        "BidsHarmonize": {"Version": "1"},
    }


def test_values_are_known_for_every_field_that_is_passed_on() -> None:
    assert set(STATED) == {*INHERITED, "Units"}
    assert set(content(STATED, "sub-1_space-a_res-b_T1w.nii")) == {*STATED, *OWN}


@pytest.mark.parametrize("harmonized", [True, False])
@pytest.mark.parametrize("name", [NAME, "sub-1_space-MNI_res-2_ce-gd_T1w.nii"])
@pytest.mark.parametrize("field", STATED)
def test_every_field_of_the_source_is_kept(field: str, name: str, harmonized: bool) -> None:
    assert content({field: STATED[field]}, name, harmonized=harmonized)[field] == STATED[field]


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("found", [True, False])
def test_what_the_source_states_goes_before_what_was_found(stated: bool, found: bool) -> None:
    assert content({"SkullStripped": stated}, found=found)["SkullStripped"] is stated


@pytest.mark.parametrize("nothing", [{}, {"SkullStripped": "yes", "SpatialReference": "", "Resolution": 2}])
def test_what_was_found_goes_before_what_is_constant(nothing: dict[str, object]) -> None:
    assert content(nothing, found=True)["SkullStripped"] is True
    in_space = content(nothing, "sub-1_space-MNI_res-2_T1w.nii")
    # The image is aligned to its source, wherever that lies.
    assert in_space["SpatialReference"] == SOURCE
    assert "source" in in_space["Resolution"]
    assert content({"BodyPartExamined": "PROSTATE"})["BodyPart"] == "PROSTATE"


@pytest.mark.parametrize("nothing", [{}, {"SkullStripped": "yes", "SpatialReference": "", "Resolution": 2}])
@pytest.mark.parametrize("name", [NAME, "sub-1_space-orig_T1w.nii", "head.nii.gz"])
def test_what_is_constant_where_nothing_is_known(nothing: dict[str, object], name: str) -> None:
    written = content(nothing, name)
    assert {key: written[key] for key in set(written) - OWN} == {
        "SkullStripped": False,
        "SpatialReference": "orig",
    }


@pytest.mark.parametrize("field", sorted(OWN))
def test_what_a_source_says_of_itself_is_not_said_of_its_derivative(field: str) -> None:
    assert content({field: "of the source"})[field] == content({})[field]


def test_another_link_name_and_a_name_that_needs_quoting(run_at) -> None:
    run = run_at("sub-1/anat/sub-1_acq-a b#c_T1w.nii")
    assert source_uri(run, "site") == "bids:site:sub-1/anat/sub-1_acq-a%20b%23c_T1w.nii"


@pytest.fixture
def raw(dataset: Path, add) -> Path:
    add("sub-01/ses-a/anat/sub-01_ses-a_acq-x_run-01_T1w.nii.gz")
    add("sub-01/ses-a/anat/sub-01_ses-a_echo-1_T2w.nii")
    add("sub-01/ses-b/anat/sub-01_ses-b_inplaneT2.nii.gz")
    add("sub-02/anat/sub-02_part-mag_T1w.nii.gz")
    add("sub-02/anat/sub-02_space-MNI152NLin2009cAsym_res-2_T1w.nii.gz")
    add("sub-02/anat/sub-02_space-template_T1w.nii.gz")
    stated = {"SkullStripped": True, "SpatialReference": "bids::T1w.json", "Units": "arbitrary"}
    add("sub-02/anat/sub-02_space-other_T1w.nii.gz")
    add("sub-02/anat/sub-02_space-other_T1w.json", stated)
    add("T1w.json", METADATA)
    add("T2w.json", METADATA | {"EchoTime": 0.1})
    return dataset


def write_derivatives(raw: Path, output: Path) -> list[Path]:
    prepare_output(output, raw)
    write_dataset_files(output, raw, version="0.1.0")
    write_run_log(output, ["bids-harmonize"], {})
    runs = select_runs(raw, Filters(modalities=("T1w", "T2w", "inplaneT2")))
    written = [output_path(output, run) for run in runs]
    for run, path in zip(runs, written, strict=True):
        with write_atomically(path) as temporary:
            nib.save(nib.load(run.path), temporary)
        with write_atomically(transform_path(path)) as temporary:
            temporary.write_bytes(b"curves")
        written_content = sidecar(
            read_metadata(run),
            name=run.path.name,
            suffix=run.suffix,
            source=source_uri(run),
            harmonized=True,
            skull_stripped=False,
            provenance={"Version": "0.1.0"},
        )
        write_json(sidecar_path(path), written_content)
        write_crash(output, run, "none")
    (output / ".tmp-left-behind-T1w.nii.gz").write_bytes(b"killed")
    for extra in ("sub-01.html", "group_T1w.tsv", "sub-01/figures/sub-01_T1w.svg"):
        (output / extra).parent.mkdir(parents=True, exist_ok=True)
        (output / extra).write_text("report")
    return written


@pytest.mark.parametrize("place", ["../out", "derivatives/bids-harmonize", "derivatives/mine"])
def test_the_derivatives_are_valid_without_warnings(raw: Path, tmp_path: Path, place: str) -> None:
    output = Path(os.path.normpath(raw / place))
    written = write_derivatives(raw, output)
    assert len(written) == 7
    assert problems(output, tmp_path) == []
    for path in written:
        (uri,) = json.loads(sidecar_path(path).read_text())["Sources"]
        assert (raw / uri.removeprefix("bids:raw:")).is_file()


def test_the_validator_would_have_seen_a_fault(raw: Path, tmp_path: Path) -> None:
    first = sidecar_path(write_derivatives(raw, tmp_path / "out")[0])
    damaged = json.loads(first.read_text())
    del damaged["SkullStripped"]
    write_json(first, damaged)
    (tmp_path / "out" / "sub-01" / "left.nii.gz.tmp").write_bytes(b"killed")
    found = problems(tmp_path / "out", tmp_path)
    assert any("NOT_INCLUDED" in problem and "/sub-01/left.nii.gz.tmp" in problem for problem in found)
    assert any("SIDECAR_KEY_REQUIRED" in problem for problem in found)
