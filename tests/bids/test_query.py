from __future__ import annotations

import os
from pathlib import Path

import pytest

from bids_harmonize.bids.filters import Filters
from bids_harmonize.bids.query import check_dataset, select_runs
from bids_harmonize.bids.run import conflicts
from bids_harmonize.errors import InvalidBIDS, NoInput, NothingSelected


def names(dataset: Path, **filters: object) -> list[str]:
    return [run.path.name for run in select_runs(dataset, Filters(**filters))]  # type: ignore[arg-type]


@pytest.fixture
def mixed(dataset: Path, add) -> Path:
    """Participants with and without sessions, in both formats, and much that must not be taken."""
    add("sub-10/anat/sub-10_T1w.nii.gz")
    add("sub-2/ses-b/anat/sub-2_ses-b_run-01_T1w.nii")
    add("sub-2/ses-a/anat/sub-2_ses-a_T2w.nii.gz")
    add("sub-2/ses-a/anat/sub-2_ses-a_part-mag_T1w.nii.gz")
    add("sub-2/ses-a/anat/sub-2_ses-a_inplaneT2.nii.gz")
    for part in ("phase", "real", "imag"):
        add(f"sub-2/ses-a/anat/sub-2_ses-a_part-{part}_T1w.nii.gz")
    for folder in ("derivatives/x", "sourcedata", "code", "stimuli", ".hidden", "sub-2/derivatives"):
        add(f"{folder}/sub-2/anat/sub-2_T1w.nii.gz")
    add("sub-2/ses-a/func/sub-2_ses-a_T1w.nii.gz")
    add("sub-2/ses-a/anat/.cache/sub-2_ses-a_T1w.nii.gz")
    add("sub-2/ses-a/anat/._sub-2_ses-a_T1w.nii.gz", b"")
    add("sub-2/ses-a/anat/sub-2_ses-a_FLAIR.nii.gz")
    add("sub-2/ses-a/anat/sub-2_ses-a_T2w.json", {})
    add("sub-2/ses-a/anat/sub-2_ses-a_T1w_brain.nii.gz")
    return dataset


def test_all_scans_and_nothing_else(mixed: Path) -> None:
    runs = select_runs(mixed, Filters())
    assert [str(run.relative) for run in runs] == [
        "sub-2/ses-a/anat/sub-2_ses-a_T2w.nii.gz",
        "sub-2/ses-a/anat/sub-2_ses-a_part-mag_T1w.nii.gz",
        "sub-2/ses-b/anat/sub-2_ses-b_run-01_T1w.nii",
        "sub-10/anat/sub-10_T1w.nii.gz",
    ]
    assert dict(runs[2].entities) == {"sub": "2", "ses": "b", "run": "01"}
    assert [(run.suffix, run.modality) for run in runs[:2]] == [("T2w", "T2w"), ("T1w", "T1w")]
    assert conflicts(runs) == {}


def test_inplane_is_taken_as_t2w_when_asked_for(mixed: Path) -> None:
    (run,) = select_runs(mixed, Filters(modalities=("inplaneT2",)))
    assert (run.suffix, run.modality) == ("inplaneT2", "T2w")


def test_participants_excluded_and_sessions(mixed: Path) -> None:
    assert names(mixed, participants=("sub-10", "10")) == ["sub-10_T1w.nii.gz"]
    assert names(mixed, excluded=("sub-2", "absent")) == ["sub-10_T1w.nii.gz"]
    assert names(mixed, sessions=("ses-b",)) == ["sub-2_ses-b_run-01_T1w.nii"]


def test_filter_file(mixed: Path) -> None:
    assert names(mixed, bids_filters={"t1w": {"run": 1}, "T2w": {"session": "zz"}}) == [
        "sub-2_ses-b_run-01_T1w.nii"
    ]


def test_links_are_kept_as_they_are_and_dangling_ones_listed(dataset: Path, add, tmp_path: Path) -> None:
    content = add("sourcedata/content.nii")
    anat = dataset / "sub-1" / "anat"
    anat.mkdir(parents=True)
    (anat / "sub-1_T1w.nii").symlink_to(content)
    (anat / "sub-1_T2w.nii.gz").symlink_to("../../.git/annex/objects/not-here")
    outside = tmp_path / "outside" / "anat"
    outside.mkdir(parents=True)
    (outside / "sub-2_T1w.nii").symlink_to(content)
    (dataset / "sub-2").symlink_to(outside.parent)
    assert [run.path for run in select_runs(dataset, Filters())] == [
        anat / "sub-1_T1w.nii",
        anat / "sub-1_T2w.nii.gz",
        dataset / "sub-2" / "anat" / "sub-2_T1w.nii",
    ]


def test_the_dataset_may_be_a_relative_path(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mixed / "code")
    run = select_runs(Path(".."), Filters(participants=("10",)))[0]
    assert run.path.is_absolute()
    assert str(run.relative) == "sub-10/anat/sub-10_T1w.nii.gz"


def test_a_misfiled_scan_is_selected_by_its_folder_and_reported(dataset: Path, add) -> None:
    path = add("sub-1/anat/sub-2_T1w.nii")
    assert set(conflicts(select_runs(dataset, Filters(participants=("1",))))) == {path}


def test_a_missing_participant_is_named_with_those_there(mixed: Path) -> None:
    with pytest.raises(NothingSelected, match=r"participant 3; it has 2 participants \(2, 10\)"):
        select_runs(mixed, Filters(participants=("10", "3")))


def test_a_missing_session_is_named_with_those_there(mixed: Path) -> None:
    with pytest.raises(NothingSelected, match=r"sessions c, d; it has 2 sessions \(a, b\)"):
        select_runs(mixed, Filters(sessions=("a", "c", "d")))


def test_nothing_selected_says_what_is_there(mixed: Path) -> None:
    with pytest.raises(NothingSelected) as caught:
        select_runs(mixed, Filters(bids_filters={"t1w": {"acq": "q"}, "t2w": {"acq": "q"}}))
    for part in ("2 participants (2, 10)", "2 sessions (a, b)", "T1w in 2, T2w in 1"):
        assert part in str(caught.value)
    assert "inplaneT2 in 1, taken only with --modalities inplaneT2" in str(caught.value)


def test_many_participants_are_counted_and_the_first_listed(dataset: Path) -> None:
    for number in range(1, 14):
        (dataset / f"sub-{number}").mkdir()
    with pytest.raises(NothingSelected, match=r"13 participants \(1, 2, 3, 4, 5, \.\.\.\)"):
        select_runs(dataset, Filters())


def test_excluding_everyone_and_an_empty_dataset_select_nothing(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingSelected):
        select_runs(mixed, Filters(excluded=("2", "10")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingSelected, match="no participants"):
        select_runs(tmp_path / "empty", Filters())


def test_broken_sidecars_do_not_disturb_the_selection(mixed: Path, add) -> None:
    add("T1w.json", b"\xef\xbb\xbf{")
    add("sub-10/anat/sub-10_T1w.json", b"")
    (mixed / "T2w.json").symlink_to("nowhere")
    add("layout_config.json", b"not JSON")
    assert len(names(mixed)) == 4


def test_a_valid_dataset_has_no_warnings(mixed: Path) -> None:
    assert check_dataset(mixed, skip=False) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"{", "not valid JSON"),
        (b'\xef\xbb\xbf{"Name": "x", "BIDSVersion": "1.8.0"}', "byte-order mark"),
        (b'{"Name": "\xe9", "BIDSVersion": "1.8.0"}', "not UTF-8"),
        (b"[]", "list"),
        (b'{"Name": "x"}', "no BIDSVersion"),
        (b'{"BIDSVersion": "1.8.0"}', "no Name"),
    ],
)
def test_a_bad_description_is_refused_or_a_warning(
    mixed: Path, add, content: bytes | None, said: str
) -> None:
    path = mixed / "dataset_description.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InvalidBIDS, match=said) as caught:
        check_dataset(mixed, skip=False)
    assert "dataset_description.json" in str(caught.value)
    skipped, problem = check_dataset(mixed, skip=True)
    assert "skipped" in skipped
    assert said in problem


def test_a_description_that_was_not_fetched(mixed: Path) -> None:
    (mixed / "dataset_description.json").unlink()
    (mixed / "dataset_description.json").symlink_to("nowhere")
    with pytest.raises(InvalidBIDS, match="datalad get"):
        check_dataset(mixed, skip=False)


def test_a_dataset_without_participants(dataset: Path) -> None:
    with pytest.raises(InvalidBIDS, match=r"no sub-\* folder"):
        check_dataset(dataset, skip=False)
    assert len(check_dataset(dataset, skip=True)) == 2


@pytest.mark.parametrize("skip", [False, True])
def test_no_input(tmp_path: Path, skip: bool) -> None:
    with pytest.raises(NoInput, match="does not exist"):
        check_dataset(tmp_path / "nowhere", skip)
    (tmp_path / "file").write_text("")
    with pytest.raises(NoInput, match="not a folder"):
        check_dataset(tmp_path / "file", skip)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_permission(mixed: Path) -> None:
    mixed.chmod(0)
    try:
        with pytest.raises(NoInput, match="Permission denied"):
            check_dataset(mixed, skip=False)
    finally:
        mixed.chmod(0o755)
