from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.bids.input_metadata import INHERITED, inherited_metadata, read_metadata
from bids_harmonize.errors import BadData, NoInput

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
SCAN = "sub-1/ses-a/anat/sub-1_ses-a_acq-x_T1w.nii.gz"


def test_the_nearest_sidecar_overrides_key_by_key(run_at, add) -> None:
    add(SCAN)
    places = ["T1w", "sub-1/sub-1_T1w", "sub-1/ses-a/sub-1_ses-a_T1w", SCAN.removesuffix(".nii.gz")]
    for depth, place in enumerate(places):
        add(f"{place}.json", {"last": depth, f"only{depth}": depth})
    expected = {"last": 3, "only0": 0, "only1": 1, "only2": 2, "only3": 3}
    assert read_metadata(run_at(SCAN)) == expected


def test_in_one_folder_more_entities_win(run_at, add) -> None:
    add(SCAN)
    add("acq-x_T1w.json", {"a": "more"})
    add("T1w.json", {"a": "fewer", "b": "fewer"})
    assert read_metadata(run_at(SCAN)) == {"a": "more", "b": "fewer"}


@pytest.mark.parametrize(
    "foreign",
    [
        "T2w.json",
        "acq-y_T1w.json",
        "run-1_T1w.json",
        "sub-2_T1w.json",
        "brainT1w.json",
        "sub-1/ses-b/anat/sub-1_ses-b_T1w.json",
        "sub-1/ses-a/anat/sub-1_ses-a_acq-x_run-1_T1w.json",
        "sub-1/ses-a/anat/._sub-1_ses-a_acq-x_T1w.json",
        "derivatives/x/T1w.json",
    ],
)
def test_sidecars_of_others_do_not_count_even_if_broken(run_at, add, foreign: str) -> None:
    add(SCAN)
    add(foreign, b"broken")
    assert read_metadata(run_at(SCAN)) == {}


def test_the_sidecar_of_an_unpacked_image(run_at, add) -> None:
    add("sub-1/anat/sub-1_T2w.nii")
    add("sub-1/anat/sub-1_T2w.json", {"EchoTime": 0.1})
    assert read_metadata(run_at("sub-1/anat/sub-1_T2w.nii")) == {"EchoTime": 0.1}


def test_a_sidecar_that_comes_later_counts(run_at, add, dataset) -> None:
    add(SCAN)
    assert read_metadata(run_at(SCAN)) == {}
    add("T1w.json", {"EchoTime": 0.1})
    # Clocks of file systems are coarse.
    os.utime(dataset, ns=(1, 1))
    assert read_metadata(run_at(SCAN)) == {"EchoTime": 0.1}


def test_a_folder_is_listed_once_for_all_participants(run_at, add, dataset, monkeypatch) -> None:
    scans = [f"sub-{n}/anat/sub-{n}_T1w.nii" for n in range(20)]
    for scan in scans:
        add(scan)
    listed: list[Path] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    for scan in scans:
        read_metadata(run_at(scan))
    assert listed.count(dataset) == 1


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf{}", b'{"a": "\xe9"}', b"{", b"[]"])
@pytest.mark.parametrize("place", ["T1w.json", SCAN.replace(".nii.gz", ".json")])
def test_a_broken_sidecar_that_counts_is_bad_data(run_at, add, place: str, content: bytes) -> None:
    add(SCAN)
    path = add(place, content)
    with pytest.raises(BadData, match=str(path)):
        read_metadata(run_at(SCAN))


def test_a_sidecar_that_was_not_fetched(run_at, add, dataset) -> None:
    add(SCAN)
    (dataset / "T1w.json").symlink_to("nowhere")
    with pytest.raises(NoInput, match=r"T1w\.json"):
        read_metadata(run_at(SCAN))


def test_what_stays_true_is_passed_on_and_nothing_else() -> None:
    true = {
        "Manufacturer": "Siemens",
        "MagneticFieldStrength": 3,
        "EchoTime": 0.003,
        "FlipAngle": 9.0,
        "MRAcquisitionType": "3D",
        "ScanningSequence": ["GR", "IR"],
        "InstitutionName": "Zürich",
        "BodyPart": "HEAD",
    }
    false = {
        "Units": "T",
        "FileHash": "abc",
        "Sources": ["x"],
        "Description": "raw",
        "ImageType": ["M"],
    }
    assert inherited_metadata(true | false) == true


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("EchoTime", [0.01, 0.02]),
        ("EchoTime", math.nan),
        ("EchoTime", "0.01"),
        ("EchoTime", 0),
        ("EchoTime", True),
        ("MagneticFieldStrength", 10**400),
        ("PartialFourier", -math.inf),
        ("FlipAngle", 361),
        ("MRAcquisitionType", "4D"),
        ("Manufacturer", None),
        ("ScanOptions", ["a", 1]),
        ("MTState", "off"),
        ("ContrastBolusIngredient", ""),
        ("SkullStripped", "true"),
        ("SkullStripped", 1),
        ("SpatialReference", ""),
        ("SpatialReference", {}),
        ("SpatialReference", {"volume": 1}),
        ("Units", 1),
    ],
)
def test_a_value_that_a_validator_would_refuse_is_left_out(key: str, value: object) -> None:
    assert inherited_metadata({key: value}) == {}


@pytest.mark.parametrize(
    ("units", "same", "kept"),
    [("T", True, True), ("T", False, False), ("arbitrary", True, True), ("arbitrary", False, True)],
)
def test_the_unit_stays_with_the_intensities(units: str, same: bool, kept: bool) -> None:
    expected = {"Units": units} if kept else {}
    assert inherited_metadata({"Units": units}, same_intensities=same) == expected


@pytest.mark.parametrize(
    ("metadata", "written"),
    [
        ({"BodyPartExamined": "Prostate"}, "Prostate"),
        ({"BodyPart": "HEAD", "BodyPartExamined": "PROSTATE"}, "HEAD"),
        ({"BodyPart": " ", "BodyPartExamined": "PROSTATE"}, "PROSTATE"),
        ({"BodyPart": ["HEAD"], "BodyPartExamined": "HEAD"}, "HEAD"),
        ({"BodyPart": "unknown"}, "unknown"),
    ],
)
def test_the_body_part_is_written_by_its_name_in_bids(metadata: dict[str, object], written: str) -> None:
    assert inherited_metadata(metadata) == {"BodyPart": written}


@given(st.dictionaries(st.sampled_from([*INHERITED, "Units", "BodyPartExamined"]), JSON), st.booleans())
def test_whatever_is_passed_on_fits_the_bids_schema(metadata: dict[str, object], same: bool) -> None:
    schema = pytest.importorskip("bidsschematools.schema").load_schema().objects.metadata
    for key, value in inherited_metadata(metadata, same_intensities=same).items():
        assert fits(value, schema[key].to_dict() if key in schema else {})


def fits(value: object, rule: dict) -> bool:
    """The few rules of JSON schema that the acquisition metadata of BIDS use."""
    if "anyOf" in rule:
        return any(fits(value, one) for one in rule["anyOf"])
    if isinstance(value, dict):
        return rule["type"] == "object" and all(
            fits(one, rule["additionalProperties"]) for one in value.values()
        )
    if isinstance(value, list):
        return rule["type"] == "array" and all(fits(one, rule["items"]) for one in value)
    if isinstance(value, bool) or rule["type"] == "boolean":
        return isinstance(value, bool) and rule["type"] == "boolean"
    if rule["type"] == "string":
        return isinstance(value, str) and value in rule.get("enum", [value])
    assert isinstance(value, int | float) and math.isfinite(min(value, 1e300))
    return rule.get("exclusiveMinimum", -math.inf) < value <= rule.get("maximum", math.inf)
