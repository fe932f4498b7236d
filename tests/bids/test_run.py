from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.bids.run import MODALITY_OF_SUFFIX, Run, conflicts, natural_key, output_stem, parse_name

KEYS = ("sub", "ses", "acq", "ce", "rec", "run", "echo", "part", "chunk")
LABELS = st.text("abcXYZ0189", min_size=1, max_size=6)
ENTITIES = st.dictionaries(st.sampled_from(KEYS[1:]), LABELS).flatmap(
    lambda rest: st.tuples(LABELS, st.permutations(list(rest.items()))).map(
        lambda pair: {"sub": pair[0], **dict(pair[1])}
    )
)
SUFFIXES = st.sampled_from(["T1w", "T2w", "inplaneT2"])
EXTENSIONS = st.sampled_from([".nii", ".nii.gz", ".json"])


@given(ENTITIES, SUFFIXES, EXTENSIONS)
def test_a_name_that_is_put_together_is_taken_apart_again(
    entities: dict[str, str], suffix: str, extension: str
) -> None:
    name = "_".join([*(f"{key}-{label}" for key, label in entities.items()), suffix]) + extension
    parsed = parse_name(name)
    assert parsed == (entities, suffix, extension)
    assert list(parsed[0]) == list(entities)


@given(ENTITIES, SUFFIXES)
def test_the_output_name_keeps_all_entities_in_order_and_adds_desc_last(
    entities: dict[str, str], suffix: str
) -> None:
    run = Run(dataset=Path("/d"), path=Path("/d/x"), entities=entities, suffix=suffix, modality="T1w")
    parsed = parse_name(output_stem(run) + ".nii.gz")
    assert parsed is not None
    assert list(parsed[0].items()) == [*entities.items(), ("desc", "harmonized")]
    assert parsed[1] == suffix


@pytest.mark.parametrize(
    "name",
    [
        "T1w.nii.gz",
        "sub-01.nii",
        "sub-01_T1w",
        "sub-01_T1w_T1w.nii",
        "sub-1_run-1_run-2_T1w.nii",
        "sub-_T1w.nii",
    ],
)
def test_a_name_that_is_no_chain_of_entities_is_refused(name: str) -> None:
    assert parse_name(name) is None


def test_a_run_knows_its_place(run_at) -> None:
    run = run_at("sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz")
    assert (run.subject, run.session, run.datatype) == ("01", "b", "anat")
    assert run.relative == PurePosixPath("sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz")
    assert run_at("sub-01/anat/sub-01_T1w.nii").session is None
    assert isinstance(hash(run), int)


def test_natural_order() -> None:
    names = ["sub-10", "sub-2", "sub-1", "sub-02", "sub-a"]
    ordered = sorted(names, key=lambda name: natural_key(PurePosixPath(name)))
    assert ordered == ["sub-1", "sub-02", "sub-2", "sub-10", "sub-a"]


@given(st.lists(st.text("sub-012a²/", min_size=1, max_size=8)))
def test_natural_order_is_the_same_whatever_the_input_order(names: list[str]) -> None:
    def order(given: list[str]) -> list[PurePosixPath]:
        return sorted(map(PurePosixPath, given), key=natural_key)

    assert order(names) == order(names[::-1])


def test_both_formats_of_one_scan_conflict_and_each_sentence_names_both_files(run_at) -> None:
    plain, packed = run_at("sub-01/anat/sub-01_T1w.nii"), run_at("sub-01/anat/sub-01_T1w.nii.gz")
    other = run_at("sub-02/anat/sub-02_T1w.nii")
    found = conflicts([plain, packed, other])
    assert set(found) == {plain.path, packed.path}
    for sentence in found.values():
        assert re.search(r"sub-01_T1w\.nii[ ,]", sentence)
        assert "sub-01_T1w.nii.gz" in sentence


def test_labels_that_differ_only_in_case_conflict(run_at) -> None:
    runs = [run_at(f"sub-{label}/anat/sub-{label}_T1w.nii.gz") for label in ("ab", "AB", "abc")]
    assert set(conflicts(runs)) == {runs[0].path, runs[1].path}


def test_names_that_differ_only_in_desc_conflict(run_at) -> None:
    runs = [run_at(f"sub-1/anat/sub-1_{desc}T1w.nii.gz") for desc in ("", "desc-a_", "acq-a_")]
    assert set(conflicts(runs)) == {runs[0].path, runs[1].path}


@pytest.mark.parametrize(
    "relative",
    [
        "sub-01/anat/sub-02_T1w.nii",
        "sub-01/ses-a/anat/sub-01_T1w.nii",
        "sub-01/ses-a/anat/sub-01_ses-b_T1w.nii",
        "sub-01/anat/sub-01_ses-a_T1w.nii",
    ],
)
def test_a_name_that_contradicts_its_folder_is_told(run_at, relative: str) -> None:
    run = run_at(relative)
    assert relative in conflicts([run])[run.path]


def test_different_suffixes_do_not_conflict(run_at) -> None:
    assert (
        conflicts([run_at(f"sub-1/anat/sub-1_{suffix}.nii") for suffix in ("T1w", "T2w", "inplaneT2")]) == {}
    )


def test_suffixes_are_those_of_bids_without_masks_and_maps() -> None:
    rules = pytest.importorskip("bidsschematools.schema").load_schema().rules.files.raw.anat
    known = {suffix for rule in rules.values() for suffix in rule["suffixes"]}
    maps = {suffix for suffix in rules["parametric"]["suffixes"] if suffix != "UNIT1"}
    assert {*MODALITY_OF_SUFFIX} == known - maps - {"defacemask"}
