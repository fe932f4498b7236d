from __future__ import annotations

import re
from pathlib import Path

import pytest
from bids import BIDSLayout
from bids.layout import Query, parse_file_entities
from bids.layout.models import Config
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.bids.filters import ENTITY_KEYS, INDEX_KEYS, Filters, accepts, labels, read_filter_file
from bids_harmonize.bids.run import MODALITY_OF_SUFFIX, Run, parse_name
from bids_harmonize.errors import NoInput, UsageError

LABELS = st.text("ab01", min_size=1, max_size=3)


def run(name: str) -> Run:
    parsed = parse_name(name)
    assert parsed is not None
    entities, suffix, _ = parsed
    folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    path = Path("/d").joinpath(*folders, "anat", name)
    return Run(
        dataset=Path("/d"), path=path, entities=entities, suffix=suffix, modality=MODALITY_OF_SUFFIX[suffix]
    )


def wants(name: str, **t1w: object) -> bool:
    return accepts(Filters(bids_filters={"t1w": t1w}), run(name))


@pytest.mark.parametrize(
    ("name", "query", "expected"),
    [
        ("sub-1_acq-x_T1w.nii", {"acquisition": "x"}, True),
        ("sub-1_acq-x_T1w.nii", {"acq": "x"}, True),
        ("sub-1_acq-x_T1w.nii", {"acq": "X"}, False),
        ("sub-1_acq-x_T1w.nii", {"acquisition": None}, False),
        ("sub-1_T1w.nii", {"acquisition": None}, True),
        ("sub-1_T1w.nii", {"acquisition": "*"}, False),
        ("sub-1_acq-x_T1w.nii", {"acquisition": "*"}, True),
        ("sub-1_acq-x_T1w.nii", {"acquisition": ["y", "x"]}, True),
        ("sub-1_acq-z_T1w.nii", {"acquisition": ["y", "x"]}, False),
        ("sub-1_T1w.nii", {"acquisition": ["y", None]}, True),
        ("sub-1_acq-x_T1w.nii", {"acquisition": []}, False),
        ("sub-1_run-01_T1w.nii", {"run": 1}, True),
        ("sub-1_run-1_T1w.nii", {"run": "01"}, True),
        ("sub-1_run-10_T1w.nii", {"run": 1}, False),
        ("sub-1_acq-01_T1w.nii", {"acq": 1}, False),
        ("sub-1_ses-a_T1w.nii", {"session": "ses-a"}, True),
        ("sub-1_ses-a_T1w.nii", {"ses": "a"}, True),
        ("sub-1_ses-a_T1w.nii", {"session": "b"}, False),
        ("sub-1_T1w.nii", {"subject": "sub-1"}, True),
        ("sub-1_T1w.nii", {"subject": ["2", "3"]}, False),
        ("sub-1_rec-n_T1w.nii", {"reconstruction": "n"}, True),
        ("sub-1_ce-gd_T1w.nii", {"ceagent": None}, False),
        ("sub-1_T1w.nii", {"datatype": "anat", "suffix": "T1w"}, True),
        ("sub-1_T1w.nii", {"suffix": "T2w"}, False),
        ("sub-1_T1w.nii", {"datatype": "func"}, False),
        ("sub-1_T1w.nii", {"extension": [".nii", ".nii.gz"]}, True),
        ("sub-1_T1w.nii", {"extension": "nii.gz"}, False),
        ("sub-1_T1w.nii.gz", {"extension": "nii.gz"}, True),
        ("sub-1_acq-x_run-2_T1w.nii", {"acq": "x", "run": 1}, False),
    ],
)
def test_queries_of_a_filter_file(name: str, query: dict[str, object], expected: bool) -> None:
    assert wants(name, **query) is expected


@pytest.mark.parametrize("key", ["t1w", "T1w", "T1W"])
def test_the_modality_is_matched_in_any_case_and_filters_only_its_own(key: str) -> None:
    filters = Filters(bids_filters={key: {"acq": "x"}, "bold": {"nonsense": {}}})
    assert accepts(filters, run("sub-1_acq-x_T1w.nii"))
    assert not accepts(filters, run("sub-1_T1w.nii"))
    assert accepts(filters, run("sub-1_T2w.nii"))


def test_legacy_scans_obey_the_filter_of_t2w() -> None:
    filters = Filters(modalities=("inplaneT2",), bids_filters={"t2w": {"run": 1}})
    assert accepts(filters, run("sub-1_run-1_inplaneT2.nii"))
    assert not accepts(filters, run("sub-1_run-2_inplaneT2.nii"))


@pytest.mark.parametrize("part", ["phase", "real", "imag"])
def test_no_filter_brings_other_parts_than_magnitude_back(part: str) -> None:
    assert not wants(f"sub-1_part-{part}_T1w.nii", part=part)
    assert wants("sub-1_part-mag_T1w.nii", part="mag")


@pytest.mark.parametrize(
    "content",
    [
        {"t1w": {"acquisiton": "x"}},
        {"t1w": {"acq": {"x": 1}}},
        {"t1w": {"acq": True}},
        {"t1w": {"run": 1.0}},
        {"t1w": ["acq"]},
        ["t1w"],
    ],
)
def test_a_filter_that_cannot_be_obeyed_is_refused(content: object) -> None:
    with pytest.raises(UsageError, match="filter file"):
        Filters(bids_filters=content)  # type: ignore[arg-type]


def test_inplane_only_if_asked_for() -> None:
    assert not accepts(Filters(), run("sub-1_inplaneT2.nii"))
    assert not accepts(Filters(modalities=("inplaneT2",)), run("sub-1_T2w.nii"))


def test_sessions_with_and_without_prefix() -> None:
    for label in ("a", "ses-a"):
        assert accepts(Filters(sessions=(label,)), run("sub-1_ses-a_T1w.nii"))
        assert not accepts(Filters(sessions=(label,)), run("sub-1_T1w.nii"))


def test_labels_lose_prefix_and_repetition() -> None:
    assert labels(("sub-2", "1", "2", "sub-1"), "sub") == ("2", "1")


@given(LABELS, st.lists(st.one_of(st.none(), LABELS), max_size=4))
def test_a_list_is_the_union_of_its_members(label: str, wanted: list[str | None]) -> None:
    name = f"sub-1_acq-{label}_T1w.nii"
    assert wants(name, acq=wanted) == any(wants(name, acq=one) for one in wanted)
    assert wants("sub-1_T1w.nii", acq=wanted) == (None in wanted)


@given(LABELS, LABELS)
def test_absent_any_and_a_label_divide_all_runs(label: str, other: str) -> None:
    present, absent = f"sub-1_acq-{label}_T1w.nii", "sub-1_T1w.nii"
    assert wants(present, acq="*") and not wants(present, acq=None)
    assert wants(absent, acq=None) and not wants(absent, acq="*")
    assert wants(present, acq=other) == (label == other)


def test_the_entities_are_those_of_the_bids_schema_and_of_pybids() -> None:
    schema = pytest.importorskip("bidsschematools.schema").load_schema().objects.entities
    keys = {name: rule["name"] for name, rule in schema.items()}
    # pybids calls one of them by a name of its own.
    assert keys == {name: key for name, key in ENTITY_KEYS.items() if name != "staining"}
    assert {rule["name"] for rule in schema.values() if rule["format"] == "index"} == INDEX_KEYS
    no_entities = {"suffix", "extension", "datatype", "fmap", "scans"}
    for entity in set(Config.load("bids").entities) - no_entities:
        Filters(bids_filters={"t1w": {entity: "x"}})


NAMES = [
    "sub-1_T1w.nii",
    "sub-1_T1w.nii.gz",
    "sub-1_acq-x_T1w.nii",
    "sub-1_acq-x_run-01_T1w.nii",
    "sub-1_acq-y_run-2_T1w.nii.gz",
    "sub-1_ses-a_T1w.nii",
    "sub-1_ses-b_acq-x_T1w.nii",
    "sub-1_ce-gd_T1w.nii",
    "sub-1_rec-n_echo-1_T1w.nii",
]
QUERIES = [
    {"acquisition": "x"},
    {"acquisition": None},
    {"acquisition": "*"},
    {"acquisition": ["x", "y"]},
    {"run": 1},
    {"run": None, "acquisition": "x"},
    {"session": "b"},
    {"session": None},
    {"ceagent": "gd"},
    {"reconstruction": "n"},
    {"extension": ".nii.gz"},
    {"suffix": "T2w"},
]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> BIDSLayout:
    folder = tmp_path_factory.mktemp("valid")
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for name in NAMES:
        path = folder / run(name).path.relative_to("/d")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return BIDSLayout(folder)


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_of_valid_names_pybids_selects_the_same(layout: BIDSLayout, query: dict[str, object]) -> None:
    special = {None: Query.NONE, "*": Query.ANY}
    asked = {
        key: special.get(value, value) if not isinstance(value, list) else value
        for key, value in query.items()
    }
    found = layout.get(return_type="filename", **{"suffix": "T1w", **asked})
    assert {Path(path).name for path in found} == {name for name in NAMES if wants(name, **query)}


def test_labels_that_pybids_cuts_are_told_apart() -> None:
    assert parse_file_entities("/sub-1/anat/sub-1_acq-my-a_T1w.nii")["acquisition"] == "my"
    assert wants("sub-1_acq-my-a_T1w.nii", acq="my-a")
    assert not wants("sub-1_acq-my-a_T1w.nii", acq="my-b")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, NoInput),
        (b"", UsageError),
        (b'\xef\xbb\xbf{"t1w": {}}', UsageError),
        (b"[]", UsageError),
        (b'{"t1w": "mprage"}', UsageError),
    ],
)
def test_a_filter_file_that_is_none(tmp_path: Path, content: bytes | None, error: type[Exception]) -> None:
    path = tmp_path / "filters.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=path.name):
        read_filter_file(path)


def test_a_filter_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "filters.json"
    path.write_text('{"t1w": {"acq": null, "run": [1, 2]}, "bold": {"task": "rest"}}')
    assert read_filter_file(path) == {"t1w": {"acq": None, "run": [1, 2]}, "bold": {"task": "rest"}}


def test_a_filter_file_that_cannot_be_obeyed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wanted.json"
    path.write_text('{"t1w": {"acquisiton": "x"}}', encoding="utf-8")
    with pytest.raises(UsageError, match=f"^{re.escape(str(path))}: .*'acquisiton'"):
        read_filter_file(path)
