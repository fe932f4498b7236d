"""What a sidecar says of the intensities of a scan; read without the libraries that measure them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from bids_harmonize.files.json_fields import JsonFields
from bids_harmonize.files.schema import Fields, check_fields, is_flag, is_float32, is_rising, is_text
from bids_harmonize.measures.quantiles import QUANTILES
from bids_harmonize.measures.types import Array

TISSUES = ("WhiteMatter", "GreyMatter", "CSF")
BEFORE_AND_AFTER = ("Before", "After")
QUANTILE_LEVELS = {"First": float(QUANTILES[0]), "Last": float(QUANTILES[-1]), "Count": len(QUANTILES)}

# These are keys of ``Intensities``.
LEVELS, STRIPPED, NO_BRAIN = "Levels", "SkullStripped", "NoBrain"
FOREGROUND, BRAIN, TISSUE_MEDIANS = "Foreground", "Brain", "Tissues"


@dataclass(frozen=True, kw_only=True)
class IntensityProfile:
    """The intensities of one image of a scan, as its sidecar describes them.

    Attributes
    ----------
    foreground, brain
        Quantile functions at `QUANTILES` inside the head (or whatever the body part is) and inside the brain;
        the latter is None where no brain was found.
    tissues
        Medians of `TISSUES`; empty where no brain was found.
    """

    foreground: Array
    brain: Array | None = None
    tissues: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScanIntensities(JsonFields):
    """The ``Intensities`` of a sidecar: of the image before and after harmonization.

    Attributes
    ----------
    before, after
        The profiles; None where they were not measured, or by a release that measured something else.
    stripped
        Whether nothing but the brain is left of a head.
    no_brain
        Why no brain was found, where none was.
    """

    before: IntensityProfile | None = None
    after: IntensityProfile | None = None
    stripped: bool = False
    no_brain: str | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: Path, inside: str = "") -> Self:
        """Read an object; see `JsonFields.from_json`."""
        content = _without_nulls(content)
        check_fields(path, content, _FIELDS, inside)
        before, after = (_profile_from_json(content, when) for when in BEFORE_AND_AFTER)
        return cls(
            before=before,
            after=after,
            stripped=content.get(STRIPPED, False),
            no_brain=content.get(NO_BRAIN),
        )

    def to_json(self) -> dict[str, Any]:
        """The object; see `JsonFields.to_json`."""
        images = {
            when: image
            for when, image in zip(BEFORE_AND_AFTER, (self.before, self.after), strict=True)
            if image is not None
        }
        foreground = {when: image.foreground.tolist() for when, image in images.items()}
        brain = {when: image.brain.tolist() for when, image in images.items() if image.brain is not None}
        medians = {when: dict(image.tissues) for when, image in images.items() if image.tissues}
        measured = {
            LEVELS: QUANTILE_LEVELS,
            STRIPPED: self.stripped,
            FOREGROUND: foreground or None,
            BRAIN: brain or None,
            TISSUE_MEDIANS: medians or None,
        }
        return measured if self.no_brain is None else measured | {NO_BRAIN: self.no_brain}


_CURVES = dict.fromkeys(BEFORE_AND_AFTER, is_rising)
_FIELDS: Fields = {
    LEVELS: {},
    STRIPPED: is_flag,
    FOREGROUND: _CURVES,
    BRAIN: _CURVES,
    TISSUE_MEDIANS: dict.fromkeys(BEFORE_AND_AFTER, dict.fromkeys(TISSUES, is_float32)),
    NO_BRAIN: is_text,
}


def _without_nulls(value: Any) -> Any:
    """A JSON value without the keys, at any depth of its objects, whose value is null."""
    if not isinstance(value, Mapping):
        return value
    return {key: _without_nulls(part) for key, part in value.items() if part is not None}


def _profile_from_json(content: Mapping[str, Any], when: str) -> IntensityProfile | None:
    foreground = _curve(content.get(FOREGROUND, {}).get(when))
    if foreground is None or content.get(LEVELS) != QUANTILE_LEVELS:
        return None
    medians = content.get(TISSUE_MEDIANS, {}).get(when, {})
    return IntensityProfile(
        foreground=foreground,
        brain=_curve(content.get(BRAIN, {}).get(when)),
        tissues=medians if set(medians) == set(TISSUES) else {},
    )


def _curve(values: Sequence[float] | None) -> Array | None:
    return None if values is None or len(values) != len(QUANTILES) else np.array(values, dtype=np.float64)
