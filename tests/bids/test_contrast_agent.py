from __future__ import annotations

import pytest

from bids_harmonize.bids.contrast_agent import INGREDIENT_KEYS, contrast_agent_stated_by

NAME = "sub-1_T1w.nii.gz"


@pytest.mark.parametrize("name", ["sub-1_ce-gd_T1w.nii.gz", "sub-1_ce-gadolinium_run-2_T1w.nii", "ce-gd.nii"])
def test_an_agent_in_the_name(name: str) -> None:
    assert contrast_agent_stated_by(name, {}) == "ce- in its name"


@pytest.mark.parametrize(
    "name", [NAME, "sub-1_ce-none_T1w.nii.gz", "sub-1_ce-No_T1w.nii.gz", "sub-slice-ce_acq-ce_T1w.nii.gz"]
)
def test_no_agent_in_the_name(name: str) -> None:
    assert contrast_agent_stated_by(name, {}) is None


@pytest.mark.parametrize("key", INGREDIENT_KEYS)
@pytest.mark.parametrize("value", ["GADOLINIUM", "gadobutrol 7.5 ml", "UNKNOWN", ["NONE", "IODINE"]])
def test_an_agent_in_the_sidecar(key: str, value: object) -> None:
    assert contrast_agent_stated_by(NAME, {key: value}) == f"{key} in its sidecar"


@pytest.mark.parametrize("key", INGREDIENT_KEYS)
@pytest.mark.parametrize(
    "value",
    ["", " ", "NONE", "none", "No", "n/a", "-", "false", "Non-contrast", [], ["NONE"], None, False, 0, {}],
)
def test_no_agent_in_the_sidecar(key: str, value: object) -> None:
    assert contrast_agent_stated_by(NAME, {key: value}) is None


def test_the_name_counts_also_where_the_sidecar_says_none() -> None:
    assert contrast_agent_stated_by("sub-1_ce-gd_T1w.nii", {"ContrastBolusIngredient": "NONE"})
