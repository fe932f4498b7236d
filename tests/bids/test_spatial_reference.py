from __future__ import annotations

import json
from pathlib import Path

import pytest

from bids_harmonize.bids.spatial_reference import KEY, with_own_spatial_reference


@pytest.fixture
def linked(dataset: Path, add) -> Path:
    """A dataset that names others, by a path and by an address."""
    links = {"raw": "../source", "atlas": "https://example.org/atlas/", "damaged": 3, "bytes": "\ud800"}
    (dataset / "dataset_description.json").write_text(json.dumps({"DatasetLinks": links}))
    add("sub-1/anat/sub-1_T2w.nii.gz")
    return dataset


def rebased(reference: object, dataset: Path) -> object:
    return with_own_spatial_reference({KEY: reference, "EchoTime": 1}, dataset)[KEY]


def test_what_stands_in_the_same_dataset_is_named_from_outside(linked: Path) -> None:
    assert rebased("bids::sub-1/anat/sub-1_T2w.nii.gz", linked) == "bids:raw:sub-1/anat/sub-1_T2w.nii.gz"
    assert rebased("sub-1/anat/sub-1_T2w.nii.gz", linked) == "bids:raw:sub-1/anat/sub-1_T2w.nii.gz"


def test_links_are_those_of_the_dataset_of_the_source(linked: Path) -> None:
    place = (linked.parent / "source").as_uri()
    assert rebased("bids:raw:sub-1/anat/sub-1_T1w.nii", linked) == f"{place}/sub-1/anat/sub-1_T1w.nii"
    assert rebased("bids:atlas:tpl.nii.gz", linked) == "https://example.org/atlas/tpl.nii.gz"


@pytest.mark.parametrize(
    "reference",
    [
        "orig",
        "https://example.org/a.nii",
        "MNI152NLin6Asym",
        "bids:damaged:a",
        "bids:bytes:a",
        "/etc/hostname",
        "../raw/dataset_description.json",
        "\ud800",
        "a\0b",
        "bids:unknown:a",
        "",
        "a" * 5000,
    ],
)
def test_the_rest_stays_as_it_is(linked: Path, reference: str) -> None:
    assert rebased(reference, linked) == reference


def test_each_of_several_references_is_rebased(linked: Path) -> None:
    stated = {"volume": "bids::a.nii", "surface": "orig", "damaged": 1}
    assert rebased(stated, linked) == {"volume": "bids:raw:a.nii", "surface": "orig", "damaged": 1}


@pytest.mark.parametrize("metadata", [{}, {KEY: 3}, {"EchoTime": 1}])
def test_other_metadata_are_the_same(linked: Path, metadata: dict[str, object]) -> None:
    assert with_own_spatial_reference(metadata, linked) == metadata


@pytest.mark.parametrize("description", [b"{", b"[]", b'{"DatasetLinks": []}', None])
def test_a_description_that_names_no_links(linked: Path, description: bytes | None) -> None:
    path = linked / "dataset_description.json"
    path.unlink()
    if description is not None:
        path.write_bytes(description)
    assert rebased("bids:raw:a.nii", linked) == "bids:raw:a.nii"
