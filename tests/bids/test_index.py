from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bids_harmonize.bids.index import images, participants
from bids_harmonize.errors import CannotCreate, InvalidBIDS, NoInput, UsageError


def test_participants_are_folders_in_natural_order(dataset: Path, add) -> None:
    for label in ("10", "2", "b"):
        (dataset / f"sub-{label}").mkdir()
    add("sub-3", b"a file")
    assert participants(dataset) == ("2", "10", "b")


def test_an_unreadable_dataset_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(NoInput, match="nowhere"):
        participants(tmp_path / "nowhere")


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
    # Without the folder, only the index can answer.
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


def test_what_pybids_does_not_list_is_there_all_the_same(dataset: Path, add) -> None:
    names = ["sub-1_acq-my-a_T1w.nii", "sub-1_acq-\udce9_T1w.nii", "sub-1_made-up_T1w.nii", "sub-1_T2w.nii"]
    for name in names[:3]:
        (dataset / "sub-1/anat").mkdir(parents=True, exist_ok=True)
        (dataset / "sub-1/anat" / name).touch()
    (dataset / "sub-1/anat" / names[3]).mkdir()
    found = images(dataset, ["1"], None)
    assert {run.path.name for run in found} == set(names)
    assert found[0].entities["acq"] == "my-a"


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
