"""Model cards: read whole or refused, and of the very weights beside them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bids_harmonize.errors import BadData, NoInput, UsageError
from bids_harmonize.files.atomic import as_json
from bids_harmonize.model.card import (
    WEIGHTS,
    ModelCard,
    ModelInfo,
    bundled_models,
    find_model,
    model_cards,
    read_card,
)
from bids_harmonize.model.card_entries import CheckpointRecord, HeldOutAgreement
from tests.helpers.toy_cards import toy_card, toy_data


@pytest.fixture
def copied(untrained_model: Path, tmp_path: Path) -> Path:
    """Weights and card of the untrained model, to be damaged."""
    for path in (untrained_model, untrained_model.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / untrained_model.name


def test_unknown_name() -> None:
    with pytest.raises(UsageError, match="T9w is neither a bundled model"):
        find_model("T9w")


@pytest.mark.parametrize("kind", [str, Path])
def test_missing_file(tmp_path: Path, kind: type) -> None:
    with pytest.raises(NoInput, match=r"mine\.safetensors does not exist"):
        find_model(kind(tmp_path / "mine.safetensors"))


def test_missing_card(copied: Path) -> None:
    copied.with_suffix(".json").unlink()
    with pytest.raises(BadData, match=r"no model card.*untrained\.json"):
        find_model(copied)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'"T1w"'])
def test_damaged_card(copied: Path, content: bytes) -> None:
    copied.with_suffix(".json").write_bytes(content)
    with pytest.raises(BadData, match="model card"):
        find_model(copied)


@pytest.mark.parametrize("key", ModelCard.required_keys())
def test_incomplete_card(copied: Path, key: str) -> None:
    card = json.loads(copied.with_suffix(".json").read_text())
    del card[key]
    copied.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(BadData, match=key):
        find_model(copied)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"OutputScale": {}}, "OutputScale must hold Unit"),
        ({"InputDistribution": {"Mean": [1]}}, "StandardDeviation"),
        ({"BodyParts": []}, "BodyParts"),
    ],
)
def test_incomplete_parts_of_a_card(change: dict[str, object], key: str) -> None:
    with pytest.raises(BadData, match=f"is no model card: .*{key}"):
        ModelCard.from_json(toy_card().to_json() | change, Path("card.json"))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"Name": None}, "Name"),
        ({"OutputScale": [1]}, "OutputScale"),
        ({"OutputScale": {"Unit": 0}}, r"OutputScale\.Unit"),
        ({"Data": {"ReferenceGroup": 1}}, r"Data\.ReferenceGroup"),
    ],
)
def test_what_a_model_is_used_by_must_be_right(change: dict[str, object], key: str) -> None:
    with pytest.raises(BadData, match=f"the value of {key} is not valid"):
        ModelCard.from_json(toy_card().to_json() | change, Path("card.json"))


def test_tampered_weights(copied: Path) -> None:
    content = bytearray(copied.read_bytes())
    content[-1] ^= 1
    copied.write_bytes(content)
    with pytest.raises(BadData, match="SHA-256"):
        find_model(copied)


@pytest.mark.parametrize(
    ("modality", "body_part", "served"),
    [
        ("T1w", None, True),
        ("T1w", "BRAIN", True),
        ("T1w", "head", True),
        ("T1w", "KNEE", False),
        ("T2w", None, False),
        ("T2w", "BRAIN", False),
    ],
)
def test_serves(modality: str, body_part: str | None, served: bool) -> None:
    card = toy_card(name="mine", body_parts=["HEAD", "BRAIN"])
    known = ModelInfo(weights=Path("mine.safetensors"), card=card)
    assert (known.name, known.sha256) == ("mine", known.card.sha256)
    assert known.serves(modality, body_part) is served


def test_cards_of_all_models_by_their_weights(copied: Path) -> None:
    cards = model_cards([copied])
    assert len(cards) == 1 + len(bundled_models())
    assert cards[hashlib.sha256(copied.read_bytes()).hexdigest()] == read_card(copied)


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_are_found_by_name(name: str) -> None:
    known = find_model(name)
    assert known.weights.stem == name
    assert known.serves(known.card.modality, None)
    assert known.card == read_card(known.weights)
    assert known.card.output_scale.unit == 1000


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_cards_are_written_as_they_were_read(name: str) -> None:
    content = (WEIGHTS / f"{name}.json").read_text(encoding="utf-8")
    card = read_card(WEIGHTS / f"{name}.safetensors")
    assert as_json(card.to_json()) == content
    assert card.other == {}
    assert card.agreement is not None and card.history is not None
    assert card.history[-1].agreement is not None


AGREEMENT = HeldOutAgreement(unaltered=26.0, augmented=21.5, rescaled=16.8)


@pytest.mark.parametrize(
    "card",
    [
        toy_card(),
        toy_card(data=toy_data(held_out=["b"], license="CC0")),
        toy_card(agreement=AGREEMENT, history=[CheckpointRecord(step=2, seconds=1, loss=0.5)]),
        toy_card(history=[CheckpointRecord(step=2, seconds=1, loss=0.5, agreement=AGREEMENT)]),
        toy_card(started_from=toy_card(hardware="abacus", agreement=AGREEMENT).as_start()),
        toy_card(other={"Mine": [1, {"a": None}]}),
    ],
)
def test_what_is_written_is_read_again(card: ModelCard) -> None:
    content = json.loads(json.dumps(card.to_json()))
    again = ModelCard.from_json(content, Path("card.json"))
    assert again.to_json() == content
    assert list(again.to_json()) == list(content)
    assert again == card


def test_a_card_of_no_scan_held_out_says_so() -> None:
    content = toy_card().to_json()
    assert content["Figures"] == {}
    assert content["StartedFrom"] is None
    assert "Data" not in content


@pytest.mark.parametrize(
    "odd",
    [
        {"Figures": None},
        {"Figures": [1]},
        {"Figures": {"LeftOutUnalteredDecibel": 1}},
        {"Figures": {"LeftOutUnalteredDecibel": "a"}},
        {"History": {}},
        {"History": [{"Step": 1}]},
        {"History": [1]},
        {"StartedFrom": "T1w"},
        {"Created": 2026, "Mine": {"a": 1}},
    ],
)
def test_what_nothing_needs_may_be_anything_and_is_kept(odd: dict[str, object]) -> None:
    content = {**odd, **toy_card(data=toy_data()).to_json(), **odd}
    card = ModelCard.from_json(content, Path("card.json"))
    assert card.to_json() == content
    assert list(card.to_json()) == list(content)
    assert card.agreement is None and card.history is None and card.started_from is None
    assert card.created is None


def test_the_card_of_a_model_names_what_it_started_from() -> None:
    first = toy_card(hardware="abacus", schedule={"steps": 3}, agreement=AGREEMENT)
    start = first.as_start().to_json()
    assert list(start) == ["SHA256", "Schedule", "Hardware", "Figures", "StartedFrom"]
    assert start["Figures"] == AGREEMENT.to_json()


def test_a_card_is_read_without_the_libraries_that_run_a_model() -> None:
    script = "import sys, bids_harmonize.model.card; print({'torch', 'numpy', 'nibabel'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
