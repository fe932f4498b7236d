from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bids_harmonize.bids.layout import images, inventory, participants
from bids_harmonize.errors import CannotCreate, InvalidBIDS, NoInput, UsageError


def test_participants_are_folders_in_natural_order(dataset: Path, add) -> None:
    for label in ("10", "2", "b"):
        (dataset / f"sub-{label}").mkdir()
    add("sub-3", b"a file")
    assert participants(dataset) == ("2", "10", "b")


def test_an_unreadable_dataset_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(NoInput, match="nowhere"):
        participants(tmp_path / "nowhere")


def test_inventory_counts_participants_not_files(dataset: Path, add) -> None:
    add("sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz")
    add("sub-1/ses-b/anat/sub-1_ses-b_T1w.nii")
    add("sub-2/anat/sub-2_T2w.nii")
    add("sub-2/anat/sub-2_FLAIR.nii")
    found = inventory(dataset)
    assert found.participants == ("1", "2")
    assert found.sessions == ("a", "b")
    assert found.with_suffix == {"T1w": 1, "T2w": 1, "inplaneT2": 0}


def test_only_the_wanted_participants_are_looked_at(dataset: Path, add) -> None:
    for label in ("1", "10", "2"):
        add(f"sub-{label}/anat/sub-{label}_T1w.nii")
    assert [run.subject for run in images(dataset, ["1"], None)] == ["1"]


def test_no_index_is_left_behind(dataset: Path, add) -> None:
    add("sub-1/anat/sub-1_T1w.nii")
    before = sorted(dataset.parent.rglob("*"))
    images(dataset, ["1"], None)
    assert sorted(dataset.parent.rglob("*")) == before


def test_an_index_is_made_of_all_participants_and_reused(dataset: Path, add, tmp_path: Path) -> None:
    add("sub-1/anat/sub-1_T1w.nii")
    add("sub-2/anat/sub-2_T1w.nii")
    database = tmp_path / "deep" / "index"
    assert [run.subject for run in images(dataset, ["1"], database)] == ["1"]
    assert [path.name for path in database.iterdir()] == ["layout_index.sqlite"]
    # Proof that the index answers, and not the disk.
    shutil.rmtree(dataset / "sub-2")
    assert [run.subject for run in images(dataset, ["2"], database)] == ["2"]


def test_an_index_serves_another_spelling_of_the_same_dataset(dataset: Path, add, tmp_path: Path) -> None:
    add("sub-1/anat/sub-1_T1w.nii")
    images(dataset, ["1"], tmp_path / "index")
    link = tmp_path / "link"
    link.symlink_to(dataset)
    (run,) = images(link, ["1"], tmp_path / "index")
    assert run.path == link / "sub-1/anat/sub-1_T1w.nii"


def test_an_index_made_by_others_does_not_bring_derivatives_in(dataset: Path, add, tmp_path: Path) -> None:
    from bids import BIDSLayout, BIDSLayoutIndexer

    add("sub-1/anat/sub-1_T1w.nii")
    add("sourcedata/sub-1/anat/sub-1_T1w.nii")
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=["nothing"])
    layout = BIDSLayout(dataset, validate=False, indexer=indexer, database_path=tmp_path / "index")
    assert len(layout.get(suffix="T1w")) == 2
    assert [str(run.relative) for run in images(dataset, ["1"], tmp_path / "index")] == [
        "sub-1/anat/sub-1_T1w.nii"
    ]


def test_an_index_of_another_dataset_is_refused(dataset: Path, add, tmp_path: Path) -> None:
    add("sub-1/anat/sub-1_T1w.nii")
    images(dataset, ["1"], tmp_path / "index")
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    with pytest.raises(UsageError, match="other"):
        images(other, ["1"], tmp_path / "index")


def test_a_damaged_index_is_named(dataset: Path, add, tmp_path: Path) -> None:
    add("sub-1/anat/sub-1_T1w.nii")
    (tmp_path / "layout_index.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match=r"layout_index\.sqlite"):
        images(dataset, ["1"], tmp_path)


def test_an_index_that_cannot_be_made(dataset: Path, add, tmp_path: Path) -> None:
    add("sub-1/anat/sub-1_T1w.nii")
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotCreate, match="file"):
        images(dataset, ["1"], tmp_path / "file" / "index")


def test_what_pybids_cannot_digest_is_one_sentence(dataset: Path, add) -> None:
    add("sub-1/anat/sub-1_T1w.nii")
    add("dataset_description.json", ["a list"])
    with pytest.raises(InvalidBIDS, match="pybids"):
        images(dataset, ["1"], None)


def test_a_path_with_odd_characters(dataset: Path, add, tmp_path: Path) -> None:
    add("sub-1/anat/sub-1_T1w.nii")
    odd = tmp_path / "a b#c%20[d]+é"
    dataset.rename(odd)
    assert [run.path for run in images(odd, ["1"], None)] == [odd / "sub-1/anat/sub-1_T1w.nii"]


@pytest.mark.parametrize("with_index", [False, True])
def test_want_of_memory_is_not_blamed_on_the_dataset(
    dataset: Path, add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_index: bool
) -> None:
    def out_of_memory(*given: object, **named: object) -> None:
        raise MemoryError

    add("sub-1/anat/sub-1_T1w.nii")
    database = tmp_path / "index" if with_index else None
    if database is not None:
        images(dataset, ["1"], database)
    monkeypatch.setattr("bids.BIDSLayout", out_of_memory)
    with pytest.raises(MemoryError):
        images(dataset, ["1"], database)
