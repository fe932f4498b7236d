"""Sidecars, filter files and tables that hold anything are read or refused; what is written stays whole."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bids_harmonize.bids.body_part import BODY_PART_KEYS, body_parts_disagree
from bids_harmonize.bids.contrast_agent import INGREDIENT_KEYS, contrast_agent_stated_by
from bids_harmonize.bids.dataset_files import dataset_description, require_own_dataset, write_dataset_files
from bids_harmonize.bids.derivatives import sidecar as sidecar_content
from bids_harmonize.bids.filters import Filters, accepts, read_filter_file
from bids_harmonize.bids.input_metadata import INHERITED, read_metadata
from bids_harmonize.bids.participants import read_participants
from bids_harmonize.bids.query import select_runs
from bids_harmonize.bids.sites import COLUMNS, NUMBERS, assign_sites
from bids_harmonize.bids.sites import TEXTS as SITE_TEXTS
from bids_harmonize.bids.spatial_reference import with_own_spatial_reference
from bids_harmonize.cli import dataset as dataset_cli
from bids_harmonize.commands.scan_plan import NoMatchingModel, model_for
from bids_harmonize.files.atomic import write_json
from bids_harmonize.files.json_object import read_object
from tests.helpers.fuzzing import (
    DAMAGED_JSON,
    JSON,
    SECONDS_FOR_ALL,
    TEXTS,
    called,
    check_told,
    done_or_refused,
    fuzz,
)
from tests.helpers.toy_datasets import COMMON, write_dataset, write_scan

pytestmark = pytest.mark.usefixtures("models_that_cannot_tell")

NAME = "sub-01_T1w.nii.gz"
# Keys of a sidecar that the program reads.
KEYS = (*INHERITED, *SITE_TEXTS, *NUMBERS, *BODY_PART_KEYS, *INGREDIENT_KEYS, "Units")
METADATA = st.dictionaries(st.sampled_from(KEYS) | TEXTS, JSON, max_size=6)


def as_bytes(content: Any) -> bytes:
    return json.dumps(content).encode()


# --- Sidecars ---------------------------------------------------------------------------------------------


def test_damaged_json(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    path = tmp_path / "a.json"

    @fuzz(tally, long, 500)
    @given(DAMAGED_JSON | st.builds(lambda a, b: a + b, DAMAGED_JSON, DAMAGED_JSON) | JSON.map(as_bytes))
    def read_or_refused(content: bytes) -> None:
        path.write_bytes(content)
        with done_or_refused(path):
            assert isinstance(read_object(path), dict)


def test_sidecars(tmp_path: Path, one_scan: Path, tally: Counter[str], long: bool) -> None:
    sidecar, written = one_scan / "sub-01/anat/sub-01_T1w.json", tmp_path / "written.json"
    (run,) = select_runs(one_scan, Filters())

    @fuzz(tally, long, 500)
    @given(METADATA)
    @example({"Manufacturer": "\ud800"})
    @example({"MagneticFieldStrength": 10**400})
    def what_is_passed_on_is_json(metadata: dict[str, Any]) -> None:
        sidecar.write_bytes(as_bytes(metadata))
        with done_or_refused(sidecar):
            read = with_own_spatial_reference(read_metadata(run), one_scan)
            try:
                model_for("T1w", read, [])
            except NoMatchingModel as reason:
                assert len(str(reason).splitlines()) == 1
            body_parts_disagree(read)
            contrast_agent_stated_by(run.path.name, read)
            content = sidecar_content(
                read,
                name=run.path.name,
                suffix="T1w",
                source="bids:raw:a",
                harmonized=False,
                skull_stripped=False,
                provenance={},
            )
            write_json(written, content)
            assert read_object(written) == content
            assign_sites(["sub-01"], [read_object(written)], one_scan)


def test_descriptions(tmp_path: Path, one_scan: Path, tally: Counter[str], long: bool) -> None:
    keys = st.sampled_from(["Name", "License", "Authors", "DatasetDOI", "GeneratedBy", "BIDSVersion"])
    source, output = one_scan / "dataset_description.json", tmp_path / "out"

    @fuzz(tally, long, 200)
    @given(st.dictionaries(keys, JSON).map(as_bytes) | DAMAGED_JSON)
    @example(as_bytes({"Name": "\ud800", "Authors": ["\udcff"]}))
    def described(content: bytes) -> None:
        source.write_bytes(content)
        for _ in range(2):
            write_dataset_files(output, one_scan, version="1")
        expected = dataset_description(output, one_scan, version="1", container=None)
        assert read_object(output / "dataset_description.json") == expected

    @fuzz(tally, long, 100)
    @given(st.dictionaries(keys, JSON).map(as_bytes) | DAMAGED_JSON)
    def an_output_of_others_is_refused(content: bytes) -> None:
        (output / "dataset_description.json").write_bytes(content)
        with done_or_refused(output):
            require_own_dataset(output)


# --- Filter files -----------------------------------------------------------------------------------------

ENTITIES = st.sampled_from(
    ["acquisition", "acq", "run", "session", "suffix", "extension", "datatype", "echo"]
)
LABELS = st.sampled_from(["*", None, "01", 1, "mprage", "9" * 5000, "٣", "²", ".nii", [None, "*"], []])
FILTERS = st.dictionaries(
    st.sampled_from(["t1w", "T1w", "t2w", "bold"]) | TEXTS,
    st.dictionaries(ENTITIES | TEXTS, LABELS | JSON, max_size=3) | JSON,
    max_size=3,
)


def test_filter_files(tmp_path: Path, one_scan: Path, tally: Counter[str], long: bool) -> None:
    path = tmp_path / "filters.json"
    write_scan(one_scan, "sub-01_acq-mprage_run-02_T1w.nii.gz")
    runs = select_runs(one_scan, Filters())

    @fuzz(tally, long, 500)
    @given(FILTERS.map(as_bytes) | DAMAGED_JSON)
    @example(as_bytes({"t1w": {"run": "9" * 5000}}))
    @example(as_bytes({"t1w": {"acquisition": {"a": "b" * 5000}}}))
    def read_or_refused(content: bytes) -> None:
        path.write_bytes(content)
        with done_or_refused(path, "filter file"):
            filters = Filters(bids_filters=read_filter_file(path))
            for run in runs:
                accepts(filters, run)


# --- Tables -----------------------------------------------------------------------------------------------

CELLS = TEXTS.map(lambda text: text.encode("utf-8", "replace").decode()) | st.sampled_from(
    [
        "sub-01",
        "01",
        "participant_id",
        *COLUMNS,
        "n/a",
        "a" * (csv.field_size_limit() + 1),
        '"',
        "\u2028",
        "\x85",
    ]
)
TABLES = st.lists(st.lists(CELLS, max_size=4).map("\t".join), max_size=5).map("\n".join).map(str.encode)
NEARLY_TABLES = TABLES.map(lambda table: b"participant_id\tsite\nsub-01\ta\n" + table)


def test_tables_of_participants(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    path = tmp_path / "participants.tsv"

    @fuzz(tally, long, 500)
    @given(NEARLY_TABLES | TABLES | DAMAGED_JSON, st.none() | st.just("site") | TEXTS)
    @example(b"participant_id\tsite\nsub-01\t" + b"a" * (csv.field_size_limit() + 1), None)
    def read_or_refused(content: bytes, column: str | None) -> None:
        path.write_bytes(content)
        with done_or_refused(path):
            assert all(name.startswith("sub-") for name in read_participants(path))
        with done_or_refused(path):
            assert len(assign_sites(["sub-01"], [{}], tmp_path, column).labels) == 1


# --- Whole commands ---------------------------------------------------------------------------------------


def test_a_dataset_with_such_files(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    people = 6

    @fuzz(tally, long, 3, SECONDS_FOR_ALL)
    @given(
        st.lists(METADATA.map(as_bytes) | DAMAGED_JSON, min_size=people, max_size=people),
        st.dictionaries(st.sampled_from(["Name", "License", "Authors"]), JSON),
        FILTERS.map(as_bytes),
        NEARLY_TABLES,
    )
    def every_scan_is_done_or_named(
        sidecars: list[bytes], description: dict[str, Any], filters: bytes, table: bytes
    ) -> None:
        tally["inputs fuzzed"] += people + 2
        for folder in ("data", "out"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        dataset, output = write_dataset(tmp_path / "data"), tmp_path / "out"
        paths = [write_scan(dataset, f"sub-{n}_T1w.nii.gz") for n in range(people)]
        for path, sidecar in zip(paths, sidecars, strict=True):
            path.with_name(path.name.replace(".nii.gz", ".json")).write_bytes(sidecar)
        whole = {"Name": "Toys", "BIDSVersion": "1.10.0"} | description
        (dataset / "dataset_description.json").write_bytes(as_bytes(whole))
        (dataset / "participants.tsv").write_bytes(table)
        (tmp_path / "filters.json").write_bytes(filters)
        common = [str(dataset), str(output), "participant", *COMMON]
        check_told(
            called(
                dataset_cli.main, [*common, "--dry-run", "--bids-filter-file", str(tmp_path / "filters.json")]
            )
        )
        result = called(dataset_cli.main, [*common, "--skip-bids-validation"])
        check_told(result)
        for path in paths:
            told = [line for line in result.err.splitlines() if path.name in line or path.stem[:-8] in line]
            assert told, result.err
        check_told(called(dataset_cli.main, [str(dataset), str(output), "group"]))
