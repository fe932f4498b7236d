"""What a sidecar says of how its image was made: written and read by one class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bids_harmonize.bids.derivatives import PROVENANCE_KEY
from bids_harmonize.errors import BadData
from bids_harmonize.measures.scan_intensities import ScanIntensities
from bids_harmonize.results.provenance import (
    OutOfDistribution,
    Provenance,
    ProvenanceOptions,
    is_own_sidecar,
    provenance_of,
)
from tests.helpers.group_results import SITES, intensities, record

PATH = Path("sub-01_desc-harmonized_T1w.json")


def without_nulls(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {key: without_nulls(value) for key, value in content.items() if value is not None}


@pytest.mark.parametrize("harmonized", [True, False])
def test_what_was_read_is_written_again(harmonized: bool) -> None:
    after = np.array([1000.0, 700.0, 300.0]) if harmonized else None
    content = record(intensities(SITES["north"], after, 0), harmonized=harmonized, Version="1")
    written = Provenance.from_json(content, PATH).to_json()
    assert without_nulls(json.loads(json.dumps(written))) == without_nulls(content)
    assert set(written) - set(content) == {"CUDAVersion"}


def test_older_releases_wrote_less() -> None:
    found = Provenance.from_json({"Version": "0.0.1", "Edit": {"Gain": None}}, PATH)
    assert found == Provenance(version="0.0.1")
    assert found.edit.gain.median is None and found.intensities == ScanIntensities()
    assert not found.passed_through


def test_what_has_no_value_is_null_or_left_out() -> None:
    assert Provenance().to_json() == {"CUDAVersion": None, "OutputScale": None, "Warnings": ()}
    assert OutOfDistribution(checked=False).to_json() == {"Checked": False}


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ({"Version": 1}, "Version"),
        ({"Edit": []}, "Edit"),
        ({"Edit": {"Gain": {"Median": "2"}}}, "Edit.Gain.Median"),
        ({"Warnings": [1]}, "Warnings"),
        ({"Intensities": {"Foreground": {"Before": [2, 1]}}}, "Intensities.Foreground.Before"),
        ({"OutOfDistribution": {"Score": -1}}, "OutOfDistribution.Score"),
    ],
)
def test_damage_is_named(content: dict[str, Any], wrong: str) -> None:
    with pytest.raises(BadData, match=rf"{PATH.name}.*{PROVENANCE_KEY}\.{wrong}\b"):
        provenance_of(PATH, {PROVENANCE_KEY: content})


@pytest.mark.parametrize("content", [{}, {PROVENANCE_KEY: None}, {PROVENANCE_KEY: []}])
def test_sidecars_of_others_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(BadData, match=PATH.name):
        provenance_of(PATH, content)


def test_a_damaged_sidecar_is_still_our_own(tmp_path: Path) -> None:
    path = tmp_path / PATH.name
    for content, own in (('{"BidsHarmonize": 1}', True), ("{}", False), ("{", False)):
        path.write_text(content)
        assert is_own_sidecar(path) is own


def test_options_without_a_value_do_not_change_the_hash() -> None:
    options = ProvenanceOptions(save_transform=False, seed=0)
    assert options.sha256 != ProvenanceOptions(save_transform=False, seed=1).sha256
    # The hash is that of version 0.1.0, so that its results are not made again.
    assert options.sha256 == "607a82eba5dbdeb91b067f3e2bf900f73fec39d16dcb27317a8565e71dd12dcc"
