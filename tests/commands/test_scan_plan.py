"""Which model a scan gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bids_harmonize.commands.scan_plan import NoMatchingModel, model_for, other_models
from bids_harmonize.model.card import ModelInfo, find_model
from tests.helpers.toy_cards import toy_card


def known(name: str, modality: str, *parts: str) -> ModelInfo:
    card = toy_card(name=name, modality=modality, body_parts=list(parts))
    return ModelInfo(weights=Path(f"{name}.safetensors"), card=card)


MODELS = [
    known("own", "T1w", "HEAD"),
    known("T1w", "T1w", "HEAD"),
    known("pelvis", "T2w", "PROSTATE"),
    known("joints", "PDw", "Left knee", "HIP"),
]


@pytest.mark.parametrize(
    ("modality", "metadata", "name"),
    [
        ("T1w", {}, "own"),
        ("T1w", {"BodyPart": "head "}, "own"),
        ("T1w", {"BodyPart": " "}, "own"),
        ("T1w", {"BodyPart": 3}, "own"),
        ("T2w", {"BodyPart": "prostate"}, "pelvis"),
        ("T2w", {"BodyPartExamined": "Prostate"}, "pelvis"),
        ("T2w", {"BodyPart": "PROSTATE", "BodyPartExamined": "HEAD"}, "pelvis"),
        ("T2w", {}, "pelvis"),
        ("PDw", {"BodyPart": "LEFT_KNEE"}, "joints"),
    ],
)
def test_the_first_model_that_serves_modality_and_body_part(
    modality: str, metadata: dict[str, Any], name: str
) -> None:
    assert model_for(modality, metadata, MODELS).name == name


@pytest.mark.parametrize(
    ("modality", "metadata", "what"),
    [
        ("T1w", {"BodyPart": "KNEE"}, "T1w of KNEE"),
        ("T1w", {"BodyPartExamined": "neck"}, "T1w of NECK"),
        ("inplaneT2", {}, "inplaneT2"),
    ],
)
def test_where_there_is_none(modality: str, metadata: dict[str, Any], what: str) -> None:
    with pytest.raises(NoMatchingModel) as raised:
        model_for(modality, metadata, MODELS)
    assert raised.value.what == what


def test_the_refusal_names_the_models_and_the_ways_out() -> None:
    with pytest.raises(NoMatchingModel) as raised:
        model_for("T2w", {"BodyPartExamined": "PELVIS"}, MODELS)
    assert str(raised.value) == (
        "no model for T2w of PELVIS (pelvis is for PROSTATE); give one with --model, "
        "or correct BodyPart in the sidecar"
    )
    with pytest.raises(NoMatchingModel) as raised:
        model_for("FLAIR", {}, MODELS)
    assert str(raised.value) == "no model for FLAIR; give one with --model"


@pytest.mark.parametrize(
    ("used", "metadata", "others"),
    [
        ("T2w", {}, ["prostate-T2w"]),
        ("T2w", {"BodyPart": "Brain"}, []),
        ("prostate-T2w", {}, ["T2w"]),
        ("prostate-T2w", {"BodyPartExamined": "PROSTATE"}, []),
        ("T1w", {}, []),
    ],
)
def test_what_other_bundled_models_a_scan_could_get(
    used: str, metadata: dict[str, Any], others: list[str]
) -> None:
    assert other_models(find_model(used), metadata) == others
