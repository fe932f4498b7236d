"""The sidecars of derivatives, read again for the reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bids_harmonize.bids.fields import Fields, check_fields, is_flag, is_number, is_positive, is_text, list_of
from bids_harmonize.bids.jsonfile import read_object
from bids_harmonize.distribution import TISSUES, WHEN
from bids_harmonize.errors import BadData

# Numbers that tell of images of float32 are 0 or within; quotients of theirs are no larger than a float.
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def _measured(value: object) -> bool:
    return is_number(value) and (value == 0 or _SMALLEST <= value <= _LARGEST)  # type: ignore[operator]


def _ratio(value: object) -> bool:
    """Of two such numbers."""
    return is_number(value) and 0 <= value <= _LARGEST**2  # type: ignore[operator]


def _rising(value: object) -> bool:
    return isinstance(value, list) and all(map(_measured, value)) and value == sorted(value)


_CURVES = dict.fromkeys(WHEN, _rising)
RECORD: Fields = {
    **dict.fromkeys(("Version", "Model", "ModelSHA256", "InputSHA256", "Device", "TorchVersion"), is_text),
    "Command": list_of(is_text),
    "Warnings": list_of(is_text),
    "Harmonized": is_flag,
    "ElapsedSeconds": _measured,
    "OutputScale": {"Unit": is_positive, "Description": is_text},
    "OutOfDistribution": {
        "Checked": is_flag,
        "Flagged": is_flag,
        "Score": _measured,
        "Threshold": _measured,
    },
    "Edit": {
        "Gain": dict.fromkeys(("Median", "Percentile1", "Percentile99", "Minimum", "Maximum"), _ratio),
        "OrderViolations": {"Pairs": _measured, "Edges": _measured},
        "DistanceToTrainingDistribution": _measured,
    },
    "Intensities": {
        "Levels": dict[str, Any](),
        "SkullStripped": is_flag,
        "Foreground": _CURVES,
        "Brain": _CURVES,
        "Tissues": dict.fromkeys(WHEN, dict.fromkeys(TISSUES, _measured)),
    },
}
"""What the reports read in a sidecar's ``BidsHarmonize``; older releases wrote less."""


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read the sidecar of a derivative; what is null in its ``BidsHarmonize`` is taken for missing.

    Raises
    ------
    BadData
        It cannot be read, is another program's, or is damaged.
    """
    content = read_object(path)
    record = content.get("BidsHarmonize")
    if not isinstance(record, Mapping):
        raise BadData(f"{path} was not written by this program; remove it or name another folder")
    known = content | {"BidsHarmonize": _without_nulls(record)}
    check_fields(path, known, {"Sources": list_of(is_text), "BidsHarmonize": RECORD})
    return known


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _without_nulls(one) for key, one in value.items() if one is not None}
