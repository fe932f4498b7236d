from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bids_harmonize.bids.dataset_files import NAME, container, write_dataset_files
from bids_harmonize.errors import UsageError


def described(output: Path, dataset: Path, **options) -> dict:
    output.mkdir(parents=True, exist_ok=True)
    write_dataset_files(output, dataset, version="1.2.3", **options)
    return json.loads((output / "dataset_description.json").read_text())


def test_the_fields_that_bids_asks_for(dataset: Path, tmp_path: Path) -> None:
    found = described(tmp_path / "out", dataset)
    assert found["Name"] == "Harmonized MRI of Two sites"
    assert found["DatasetType"] == "derivative"
    assert len(found["Authors"]) >= 2
    assert found["GeneratedBy"][0].keys() == {"Name", "Version", "CodeURL"}
    assert found["GeneratedBy"][0]["Version"] == "1.2.3"
    assert found["DatasetLinks"] == {"raw": dataset.as_uri()}
    assert found["SourceDatasets"] == [{"URL": dataset.as_uri()}]
    assert "HEDVersion" not in found
    assert len((tmp_path / "out" / "README").read_bytes()) > 150
    ignored = (tmp_path / "out" / ".bidsignore").read_text().splitlines()
    assert ignored == ["*.html", "figures", "group_*", "pools", "*_curves.safetensors"]


def test_what_the_source_says_of_itself_is_passed_on(dataset: Path, add, tmp_path: Path) -> None:
    source = {"Name": "A", "Authors": ["B. C.", 5, ""], "License": "CC0", "DatasetDOI": "doi:10.1/x"}
    add("dataset_description.json", source)
    found = described(tmp_path / "out", dataset)
    assert found["Authors"] == ["B. C.", "bids-harmonize developers"]
    assert found["License"] == "CC0"
    assert found["SourceDatasets"][0]["DOI"] == "doi:10.1/x"


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"Name": 1, "Authors": "x", "License": []}'])
def test_a_source_without_a_usable_description(dataset: Path, tmp_path: Path, content: bytes | None) -> None:
    path = dataset / "dataset_description.json"
    path.unlink() if content is None else path.write_bytes(content)
    found = described(tmp_path / "out", dataset)
    assert found["Name"] == "Harmonized MRI"
    assert "License" not in found


@pytest.mark.parametrize("folder", ["bids-harmonize", "bids-harmonize-v2", "mine"])
def test_inside_the_source_the_link_is_relative_and_the_first_name_in_the_folder(
    dataset: Path, folder: str
) -> None:
    output = dataset / "derivatives" / folder
    found = described(output, dataset)
    assert (output / found["DatasetLinks"]["raw"]).resolve() == dataset.resolve()
    assert found["GeneratedBy"][0]["Name"] in folder
    own = [one["Name"] for one in found["GeneratedBy"]]
    assert own == ([NAME] if NAME in folder else [folder, NAME])
    write_dataset_files(output, dataset, version="1.2.4")


def test_a_deeper_folder_has_a_longer_link(dataset: Path) -> None:
    found = described(dataset / "derivatives" / "bids-harmonize" / "v1", dataset)
    assert found["DatasetLinks"] == {"raw": "../../.."}


def test_nothing_is_written_twice(dataset: Path, tmp_path: Path) -> None:
    described(tmp_path / "out", dataset)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "out").iterdir()}
    assert len(before) == 3
    described(tmp_path / "out", dataset)
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir()} == before


def test_a_new_version_and_a_users_own_lines(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    described(output, dataset)
    (output / "README").write_text("mine")
    (output / ".bidsignore").write_text("*.foo\nfigures\n")
    write_dataset_files(output, dataset, version="2.0")
    assert json.loads((output / "dataset_description.json").read_text())["GeneratedBy"][0]["Version"] == "2.0"
    assert (output / "README").read_text() == "mine"
    assert (output / ".bidsignore").read_text().split() == [
        "*.foo",
        "figures",
        "*.html",
        "group_*",
        "pools",
        "*_curves.safetensors",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b'{"Name": "fMRIPrep", "GeneratedBy": [{"Name": "fMRIPrep"}]}',
        b'{"Name": "raw", "BIDSVersion": "1.8.0"}',
        b'{"GeneratedBy": "bids-harmonize"}',
        b"",
        b"[]",
    ],
)
def test_another_programs_folder_is_refused_untouched(dataset: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "dataset_description.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=str(path)):
        described(tmp_path / "out", dataset)
    assert path.read_bytes() == content
    assert list((tmp_path / "out").iterdir()) == [path]


def test_many_at_once(dataset: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: described(tmp_path / "out", dataset), range(40)))
    assert all(one == found[0] for one in found)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"README", ".bidsignore", "dataset_description.json"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"IS_DOCKER": "1"}, {"Type": "docker", "Tag": "bids/harmonize:0.1.0"}),
        ({"IS_DOCKER": "1", "BIDS_HARMONIZE_CONTAINER": "x:1"}, {"Type": "docker", "Tag": "x:1"}),
        ({"IS_DOCKER": "1", "APPTAINER_NAME": "a.sif"}, {"Type": "apptainer", "Tag": "bids/harmonize:0.1.0"}),
        ({"SINGULARITY_NAME": "a.sif"}, {"Type": "apptainer", "Tag": "bids/harmonize:0.1.0"}),
    ],
)
def test_containers(
    environment: dict[str, str], expected: dict | None, dataset: Path, tmp_path: Path
) -> None:
    found = container(environment, version="0.1.0")
    assert found == expected
    generated = described(tmp_path / "out", dataset, container=found)["GeneratedBy"][0]
    assert generated.get("Container") == expected
