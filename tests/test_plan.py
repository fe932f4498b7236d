"""Which model a scan gets."""

from __future__ import annotations

from typing import Any

import pytest

from bids_harmonize.card import Carded
from bids_harmonize.plan import NoModel, model_for


def known(name: str, modality: str, *parts: str) -> Carded:
    return Carded(card={"Name": name, "Modality": modality, "BodyParts": list(parts)}, sha256=name)


MODELS = [known("own", "T1w", "HEAD"), known("T1w", "T1w", "HEAD"), known("pelvis", "T2w", "PROSTATE")]


@pytest.mark.parametrize(
    ("modality", "metadata", "name"),
    [
        ("T1w", {}, "own"),
        ("T1w", {"BodyPart": "head "}, "own"),
        ("T1w", {"BodyPart": " "}, "own"),
        ("T1w", {"BodyPart": 3}, "own"),
        ("T2w", {"BodyPart": "prostate"}, "pelvis"),
        ("T2w", {}, "pelvis"),
    ],
)
def test_the_first_model_that_serves_modality_and_body_part(
    modality: str, metadata: dict[str, Any], name: str
) -> None:
    assert model_for(modality, metadata, MODELS).name == name


@pytest.mark.parametrize(
    ("modality", "metadata", "what"),
    [("T1w", {"BodyPart": "KNEE"}, "T1w of KNEE"), ("inplaneT2", {}, "inplaneT2")],
)
def test_where_there_is_none(modality: str, metadata: dict[str, Any], what: str) -> None:
    with pytest.raises(NoModel, match=f"no model for {what};") as raised:
        model_for(modality, metadata, MODELS)
    assert raised.value.what == what
