"""Model cards: what a model is for, and of which weights; read without the libraries that run a model."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_harmonize.bids.fields import Fields, check_fields, is_number, is_text, list_of
from bids_harmonize.errors import BadData, NoInput, UsageError

WEIGHTS = Path(__file__).parent / "weights"
# Beyond these, float32 could not hold the images.
UNITS = (1e-30, 1e30)


def _is_within(low: float, high: float) -> Callable[[object], bool]:
    return lambda value: is_number(value) and low <= float(str(value)) <= high


def _is_name(value: object) -> bool:
    return is_text(value) and value != ""


CARD: Fields = {
    **dict.fromkeys(("Name", "Modality", "SHA256"), _is_name),
    "BodyParts": list_of(is_text),
    "OutputScale": {"Unit": _is_within(*UNITS), "Description": is_text},
    "InputDistribution": dict.fromkeys(
        ("Mean", "StandardDeviation"), list_of(_is_within(0, sys.float_info.max))
    ),
    "Data": {"Name": is_text, "ReferenceGroup": list_of(is_text)},
}
"""What a model card must hold where it holds these."""
CARD_KEYS = ("Name", "Modality", "BodyParts", "OutputScale", "InputDistribution", "SHA256")


@dataclass(frozen=True, kw_only=True)
class Carded:
    """A model as its card tells it.

    Attributes
    ----------
    card
        What the model was trained on, how, and how well it does.
    sha256
        Of the weight file.
    """

    card: Mapping[str, Any]
    sha256: str

    @property
    def name(self) -> str:
        """The model's name, as on its card."""
        return str(self.card["Name"])

    def serves(self, modality: str, body_part: str | None) -> bool:
        """Whether the model is meant for a modality and body part; an unstated body part fits every model."""
        parts = {str(part).upper() for part in self.card["BodyParts"]}
        return (body_part is None or body_part.upper() in parts) and modality == self.card["Modality"]


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def find_model(model: str | Path) -> tuple[Path, Carded]:
    """The weight file of a bundled model, by its name, or of any model, by its path; and what its card tells.

    Raises
    ------
    UsageError
        There is no bundled model of that name.
    NoInput, BadData
        The file or its card is missing, damaged, or does not fit the other.
    """
    path = _weights_path(model)
    card = read_card(path)
    sha256 = hashlib.sha256(_read_bytes(path)).hexdigest()
    if sha256 != card["SHA256"]:
        raise BadData(f"{path} is not the file that its model card describes (SHA-256 differs); restore it")
    return path, Carded(card=card, sha256=sha256)


def read_card(weights: Path) -> dict[str, Any]:
    """The model card beside a weight file.

    Raises
    ------
    BadData
        It is missing, no model card, or says what cannot be.
    """
    path = weights.with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        # NaN and Infinity, which Python reads, are not JSON and must not come into sidecars.
        json.dumps(card, allow_nan=False)
    except (OSError, ValueError, RecursionError) as error:
        raise BadData(
            f"{weights} has no readable model card; put it beside the weights as {path.name}"
        ) from error
    if not isinstance(card, dict) or any(key not in card for key in CARD_KEYS):
        raise BadData(f"{path} is no model card: it must hold {', '.join(CARD_KEYS)}")
    check_fields(path, card, CARD)
    if "Unit" not in card["OutputScale"]:
        raise BadData(f"{path} is no model card: OutputScale must say what Unit is")
    if not {"Mean", "StandardDeviation"} <= set(card["InputDistribution"]):
        raise BadData(f"{path} is no model card: InputDistribution must hold Mean and StandardDeviation")
    if not card["BodyParts"]:
        raise BadData(f"{path} is no model card: BodyParts must name one at least")
    return card


def model_cards(models: Iterable[str | Path] = ()) -> dict[str, dict[str, Any]]:
    """Cards of models, named as for `find_model`, and of all bundled ones, by the SHA-256 of their weights.

    Raises
    ------
    UsageError, NoInput, BadData
        As `find_model` does; the weights are not read.
    """
    cards = [read_card(_weights_path(model)) for model in (*models, *bundled_models())]
    return {str(card["SHA256"]): card for card in reversed(cards)}


def _weights_path(model: str | Path) -> Path:
    if isinstance(model, str) and model in bundled_models():
        return WEIGHTS / f"{model}.safetensors"
    path = Path(model)
    if isinstance(model, str) and path.suffix != ".safetensors":
        names = ", ".join(bundled_models())
        raise UsageError(f"{model} is neither a bundled model ({names}) nor a .safetensors file")
    # Not path.is_file(), which raises where a name is too long to be there.
    if not os.path.isfile(path):
        raise NoInput(f"the model {path} does not exist")
    return path


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NoInput(f"the model {path} cannot be read ({error.strerror})") from error
