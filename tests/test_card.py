"""Model cards: read whole or refused, and of the very weights beside them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bids_harmonize.card import CARD_KEYS, Carded, bundled_models, find_model, model_cards, read_card
from bids_harmonize.errors import BadData, NoInput, UsageError


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
    with pytest.raises(BadData, match=r"no readable model card.*untrained\.json"):
        find_model(copied)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'"T1w"'])
def test_damaged_card(copied: Path, content: bytes) -> None:
    copied.with_suffix(".json").write_bytes(content)
    with pytest.raises(BadData, match="model card"):
        find_model(copied)


@pytest.mark.parametrize("key", CARD_KEYS)
def test_incomplete_card(copied: Path, key: str) -> None:
    card = json.loads(copied.with_suffix(".json").read_text())
    del card[key]
    copied.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(BadData, match=key):
        find_model(copied)


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
    known = Carded(card={"Name": "mine", "Modality": "T1w", "BodyParts": ["HEAD", "BRAIN"]}, sha256="0")
    assert known.name == "mine"
    assert known.serves(modality, body_part) is served


def test_cards_of_all_models_by_their_weights(copied: Path) -> None:
    cards = model_cards([copied])
    assert len(cards) == 1 + len(bundled_models())
    assert cards[hashlib.sha256(copied.read_bytes()).hexdigest()] == read_card(copied)


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_are_found_by_name(name: str) -> None:
    path, known = find_model(name)
    assert path.stem == name
    assert known.serves(known.card["Modality"], None)
    assert known.card == read_card(path)
    assert known.card["OutputScale"]["Unit"] == 1000


def test_a_card_is_read_without_the_libraries_that_run_a_model() -> None:
    script = "import sys, bids_harmonize.card; print({'torch', 'numpy', 'nibabel'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
