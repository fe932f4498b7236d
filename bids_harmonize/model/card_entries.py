"""The objects in a model card, and how they are read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from bids_harmonize.files.json_fields import JsonFields, KeptJsonFields, json_key, json_note
from bids_harmonize.files.schema import MAX_FLOAT32, is_number, is_object, is_text, list_of

# Beyond these, float32 could not hold the images.
UNITS = (1e-30, 1e30)


def _is_within(low: float, high: float) -> Callable[[object], bool]:
    return lambda value: is_number(value) and low <= float(str(value)) <= high


def _is_text_or_texts(value: object) -> bool:
    return is_text(value) or list_of(is_text)(value)


def _is_measured(value: object) -> bool:
    # The checkpoint of a training that diverged holds numbers that are not finite; no card that is read does.
    return isinstance(value, float) or is_number(value)


# The distance of a scan to these is squared, which must not overflow.
_is_spread = list_of(_is_within(0, MAX_FLOAT32))


class CardObject(KeptJsonFields):
    """A JSON object in a card."""

    INCOMPLETE: ClassVar[str] = "no model card"


@dataclass(frozen=True, kw_only=True)
class OutputScale(CardObject):
    """The unit of a model's outputs.

    Attributes
    ----------
    unit
        The intensity in the outputs of what the network's curves call 1.
    description
        What has this intensity.
    """

    unit: float = json_key("Unit", _is_within(*UNITS), required=True)
    description: str | None = json_key("Description", is_text)


@dataclass(frozen=True, kw_only=True)
class InputDistribution(CardObject):
    """Mean and standard deviation of each global feature over the inputs of the training."""

    mean: Sequence[float] = json_key("Mean", _is_spread, required=True)
    standard_deviation: Sequence[float] = json_key("StandardDeviation", _is_spread, required=True)


@dataclass(frozen=True, kw_only=True)
class TrainingData(CardObject):
    """The dataset that a model was made from.

    Attributes
    ----------
    name, license, authors, dataset_doi, references_and_links
        Values of its ``dataset_description.json``.
    reference_group, held_out
        Names of the scans that the model learned from, and of those that it was measured on.
    reference_intensities
        For each scan of the group, before it was scaled: the intensity that its unit stands for.
    echo_times
        Echo times (ms) from which, and to which, the group was brought tissue by tissue.
    """

    name: str | None = json_key("Name", is_text)
    license: str | None = json_note("License", is_text)
    authors: Sequence[str] | str | None = json_note("Authors", _is_text_or_texts)
    dataset_doi: str | None = json_note("DatasetDOI", is_text)
    references_and_links: Sequence[str] | str | None = json_note("ReferencesAndLinks", _is_text_or_texts)
    reference_group: Sequence[str] | None = json_key("ReferenceGroup", list_of(is_text))
    held_out: Sequence[str] | None = json_note("LeftOut", list_of(is_text))
    reference_intensities: Mapping[str, float] | None = json_note("LevelBefore", is_object)
    echo_times: Sequence[float] | None = json_note("BroughtFromToEchoTime", list_of(is_number))

    @classmethod
    def of_description(cls, description: Mapping[str, Any]) -> Self:
        """What a dataset's description says of it."""
        names = ("name", "license", "authors", "dataset_doi", "references_and_links")
        stated: dict[str, Any] = {name: description.get(cls.json_keys()[name].name) for name in names}
        return cls(**stated)


@dataclass(frozen=True, kw_only=True)
class HeldOutAgreement(CardObject):
    """How well scans that were held out agree with themselves, in dB, in the region that is trained on.

    Attributes
    ----------
    unaltered, augmented
        Agreement when harmonized as they are, and when harmonized after they were altered.
    rescaled
        Agreement when altered and not harmonized, but for a factor that brings the median to the original's.
    """

    unaltered: float = json_key("LeftOutUnalteredDecibel", _is_measured, required=True)
    augmented: float = json_key("LeftOutAlteredDecibel", _is_measured, required=True)
    rescaled: float = json_key("LeftOutAlteredBeforeDecibel", _is_measured, required=True)

    @property
    def merit(self) -> float:
        """What early stopping goes by: altered scans and unaltered ones weigh the same."""
        return self.unaltered + self.augmented


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord(JsonFields):
    """How far a training was at a checkpoint.

    Attributes
    ----------
    seconds
        Time spent on training until then.
    loss
        Mean loss since the checkpoint before.
    agreement
        Agreement of the averaged weights; None if no scan was held out.
    """

    step: int = json_key("Step", _is_measured, required=True)
    seconds: float = json_key("Seconds", _is_measured, required=True)
    loss: float = json_key("Loss", _is_measured, required=True)
    agreement: HeldOutAgreement | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: Path, inside: str = "") -> Self:
        """Read an object, among whose keys those of the agreement stand; see `JsonFields.from_json`."""
        rest = {key: value for key, value in content.items() if key not in cls.required_keys()}
        agreement = HeldOutAgreement.from_json(rest, path, inside) if rest else None
        return replace(super().from_json(content, path, inside), agreement=agreement)

    def to_json(self) -> dict[str, Any]:
        """The object; see `from_json`."""
        return super().to_json() | (self.agreement.to_json() if self.agreement else {})


@dataclass(frozen=True, kw_only=True)
class StartingModel(CardObject):
    """What the card of a model that another one was trained from says of its own training."""

    sha256: str | None = json_note("SHA256", is_text)
    schedule: Mapping[str, Any] | None = json_note("Schedule", is_object)
    duration_seconds: float | None = json_note("DurationSeconds", is_number)
    hardware: str | None = json_note("Hardware", is_text)
    alterations: Mapping[str, Any] | None = json_note("Alterations", is_object)
    agreement: Mapping[str, Any] | None = json_note("Figures", is_object)
    started_from: Mapping[str, Any] | None = json_note("StartedFrom", is_object)


def describe_alterations(recipe: Mapping[str, Any], parameters: Mapping[str, str | None]) -> dict[str, Any]:
    """The entry of a card on how often and, by family and in words, by how much scans were altered."""
    return {**recipe, "Parameters": dict(parameters)}
