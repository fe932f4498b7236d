"""Model cards: what a model is for, and of which weights; read without the libraries that run a model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bids_harmonize.errors import BadData, NoInput, UsageError
from bids_harmonize.files.checksum import file_sha256
from bids_harmonize.files.json_fields import json_key, json_note
from bids_harmonize.files.json_object import read_object
from bids_harmonize.files.schema import is_number, is_object, is_text, list_of
from bids_harmonize.model.card_entries import (
    CardObject,
    CheckpointRecord,
    HeldOutAgreement,
    InputDistribution,
    OutputScale,
    StartingModel,
    TrainingData,
)

WEIGHTS = Path(__file__).parents[1] / "weights"


def _is_name(value: object) -> bool:
    return is_text(value) and value != ""


# --- The card --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModelCard(CardObject):
    """What a model is for, what it was trained on and how, and how well it does.

    Every card holds what a model needs to be used, which is checked. What else there is may be missing in
    older cards and in those made by others, and is as they have it.

    Attributes
    ----------
    body_parts
        DICOM's terms for what it serves.
    sha256
        Checksum of the weight file.
    alterations, schedule
        How the scans were altered, and how long and how fast the network was trained.
    steps
        Number of training steps that were done.
    agreement
        Agreement measured on scans that were held out.
    simulated_heads
        Names of the label maps that acquisitions were simulated from.
    started_from
        The model whose weights this one began with; None if they were random.
    ood_detector, reference_intensities
        The objects that `ContrastDetector` or `OODDetector`, and `ReferenceIntensities` store.
    """

    name: str = json_key("Name", _is_name, required=True)
    modality: str = json_key("Modality", _is_name, required=True)
    body_parts: Sequence[str] = json_key("BodyParts", list_of(is_text), required=True)
    output_scale: OutputScale = json_key("OutputScale", OutputScale, required=True)
    created: str | None = json_note("Created", is_text)
    version: str | None = json_note("Version", is_text)
    data: TrainingData | None = json_key("Data", TrainingData, default=None)
    alterations: Mapping[str, Any] | None = json_note("Alterations", is_object)
    hardware: str | None = json_note("Hardware", is_text)
    schedule: Mapping[str, Any] | None = json_note("Schedule", is_object)
    steps: int | None = json_note("Steps", is_number)
    duration_seconds: float | None = json_note("DurationSeconds", is_number)
    # Without a value they say that no scan was held out, and that the first weights were random.
    agreement: HeldOutAgreement | None = json_note("Figures", HeldOutAgreement, if_empty={})
    history: Sequence[CheckpointRecord] | None = json_note("History", [CheckpointRecord])
    input_distribution: InputDistribution = json_key("InputDistribution", InputDistribution, required=True)
    simulated_heads: Sequence[str] | None = json_note("SimulatedHeads", list_of(is_text))
    started_from: StartingModel | None = json_note("StartedFrom", StartingModel, if_empty=None)
    # A damaged detector must not pass for none: whatever is there is left to the detectors to refuse.
    ood_detector: Mapping[str, Any] | None = json_note("Recognizer", lambda value: value is not None)
    reference_intensities: Mapping[str, Any] | None = json_note("ReferenceIntensities", is_object)
    sha256: str = json_key("SHA256", _is_name, required=True)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: Path, inside: str = "") -> Self:
        """Read a card; see `JsonFields.from_json`."""
        card = super().from_json(content, path, inside)
        if not card.body_parts:
            raise BadData(f"{path} is no model card: BodyParts must name one at least")
        return card

    def as_start(self) -> StartingModel:
        """What the card of a model that is trained from this one says of it."""
        content, known = self.to_json(), StartingModel.json_keys().values()
        return StartingModel.from_json(
            {key.name: content[key.name] for key in known if key.name in content}, Path()
        )


# --- Models and their cards -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model as its card describes it.

    Attributes
    ----------
    weights
        The weight file.
    """

    weights: Path
    card: ModelCard

    @property
    def name(self) -> str:
        """The model's name."""
        return self.card.name

    @property
    def sha256(self) -> str:
        """Checksum of the weight file."""
        return self.card.sha256

    def serves(self, modality: str, body_part: str | None) -> bool:
        """Whether the model is meant for a modality and body part; an unstated body part fits every model."""
        parts = {part.upper() for part in self.card.body_parts}
        return (body_part is None or body_part.upper() in parts) and modality == self.card.modality


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def known_models(asked_for: Sequence[str] = ()) -> list[ModelInfo]:
    """What is known of models without loading them: first those asked for, then the bundled.

    Raises
    ------
    UsageError, NoInput, BadData
        As `find_model` does.
    """
    return [find_model(model) for model in dict.fromkeys((*asked_for, *bundled_models()))]


def find_model(model: str | Path) -> ModelInfo:
    """What is known of a bundled model, by its name, or of any model, by the path of its weight file.

    Raises
    ------
    UsageError
        There is no bundled model of that name.
    NoInput, BadData
        The file or its card is missing, damaged, or does not fit the other.
    """
    path = _weights_path(model)
    card = read_card(path)
    if file_sha256(path) != card.sha256:
        raise BadData(f"{path} is not the file that its model card describes (SHA-256 differs); restore it")
    return ModelInfo(weights=path, card=card)


def read_card(weights: Path) -> ModelCard:
    """The model card beside a weight file.

    Raises
    ------
    BadData
        It is missing, no model card, or says what cannot be.
    """
    path = weights.with_suffix(".json")
    try:
        content = read_object(path)
        # NaN and Infinity, which Python reads, are not JSON and must not come into sidecars.
        json.dumps(content, allow_nan=False)
    except (BadData, NoInput, ValueError) as error:
        if os.path.lexists(path):
            raise BadData(f"the model card of {weights} cannot be used ({error}); restore it") from error
        raise BadData(f"{weights} has no model card; put it beside the weights as {path.name}") from error
    return ModelCard.from_json(content, path)


def model_cards(models: Iterable[str | Path] = ()) -> dict[str, ModelCard]:
    """Cards of models, named as for `find_model`, and of all bundled ones, by the SHA-256 of their weights.

    Raises
    ------
    UsageError, NoInput, BadData
        As `find_model` does; the weights are not read.
    """
    cards = [read_card(_weights_path(model)) for model in (*models, *bundled_models())]
    return {card.sha256: card for card in reversed(cards)}


def _weights_path(model: str | Path) -> Path:
    if isinstance(model, str) and model in bundled_models():
        return WEIGHTS / f"{model}.safetensors"
    path = Path(model)
    if isinstance(model, str) and path.suffix != ".safetensors":
        names = ", ".join(bundled_models())
        raise UsageError(
            f"{model} is neither a bundled model ({names}) nor a .safetensors file; correct the name"
        )
    # `Path.is_file` would raise if the name is too long to exist.
    if not os.path.isfile(path):
        raise NoInput(f"the model {path} does not exist")
    return path
