"""Acquisition metadata of one run: read by inheritance, and what of it stays true after harmonization.

The sidecars are read here and not by pybids, which would index the metadata of the whole dataset, and which
one sidecar that is not JSON would stop (see `bids.index`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bids_harmonize.bids.body_part import body_part_field
from bids_harmonize.bids.run import Run, parse_name
from bids_harmonize.errors import BadData
from bids_harmonize.files.json_object import read_object
from bids_harmonize.files.schema import is_flag, is_number, is_positive, is_text, list_of


def _texts(value: object) -> bool:
    return is_text(value) or list_of(is_text)(value)


def _angle(value: object) -> bool:
    return is_positive(value) and value <= 360  # type: ignore[operator]


def _filled_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _text_or_texts_by_name(value: object) -> bool:
    """Whether it is a text that says something, or an object of such texts."""
    if isinstance(value, dict):
        return bool(value) and all(map(_filled_text, value.values()))
    return _filled_text(value)


def _one_of(*allowed: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in allowed


INHERITED: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("SpatialReference", "Resolution"), _text_or_texts_by_name),
    "SkullStripped": is_flag,
    **dict.fromkeys(
        (
            "Manufacturer",
            "ManufacturersModelName",
            "DeviceSerialNumber",
            "StationName",
            "SoftwareVersions",
            "InstitutionName",
            "InstitutionAddress",
            "InstitutionalDepartmentName",
            "ReceiveCoilName",
            "ReceiveCoilActiveElements",
            "GradientSetType",
            "MRTransmitCoilSequence",
            "MatrixCoilMode",
            "CoilCombinationMethod",
            "BodyPart",
            "BodyPartDetails",
            "PulseSequenceType",
            "SequenceName",
            "PulseSequenceDetails",
            "ParallelAcquisitionTechnique",
            "PartialFourierDirection",
        ),
        is_text,
    ),
    **dict.fromkeys(("ScanningSequence", "SequenceVariant", "ScanOptions"), _texts),
    **dict.fromkeys(("NonlinearGradientCorrection", "MTState", "SpoilingState", "WaterSuppression"), is_flag),
    **dict.fromkeys(("PartialFourier", "ParallelReductionFactorInPlane", "NumberShots"), is_number),
    **dict.fromkeys(
        (
            "MagneticFieldStrength",
            "EchoTime",
            "RepetitionTime",
            "InversionTime",
            "SliceThickness",
            "DwellTime",
        ),
        is_positive,
    ),
    "FlipAngle": _angle,
    "ContrastBolusIngredient": _one_of(
        "IODINE", "GADOLINIUM", "CARBON DIOXIDE", "BARIUM", "XENON", "UNKNOWN", "NONE"
    ),
    "MRAcquisitionType": _one_of("1D", "2D", "3D"),
    "PhaseEncodingDirection": _one_of("i", "i-", "j", "j-", "k", "k-"),
}
"""Metadata that say how the scan was made and where it lies, each with the check that its value must pass.

What describes the voxel values (scaling), the file (hashes, names, dates) or another image is not true of the
harmonized image and is not here.
"""

ARBITRARY = "arbitrary"
"""The unit of intensities that have none."""


def read_metadata(run: Run) -> dict[str, Any]:
    """Read a run's metadata by the inheritance principle of BIDS.

    From the dataset's root to the run's own folder, every JSON file counts that has the run's suffix and no
    entity that the run lacks. The nearer file overrides the farther key by key, and in one folder the one
    with more entities. pybids' ``get_metadata`` is of no use here: its index reads the sidecars of all runs
    first, and one that is damaged stops it.

    Parameters
    ----------
    run
        The run.

    Returns
    -------
    dict
        The metadata; empty where there is no sidecar.

    Raises
    ------
    NoInput
        If a sidecar that counts was not fetched or cannot be read.
    BadData
        If it is not a JSON object in UTF-8, or a folder cannot be listed.
    """
    metadata: dict[str, Any] = {}
    folders = [run.dataset.joinpath(*run.relative.parts[:depth]) for depth in range(len(run.relative.parts))]
    for folder in folders:
        for sidecar in _sidecars(run, folder):
            metadata |= read_object(sidecar)
    return metadata


def inherited_metadata(metadata: Mapping[str, Any], *, same_intensities: bool = False) -> dict[str, Any]:
    """Keep of a run's metadata what stays true of its derivative.

    A value of the wrong type, which a validator would refuse, is left out. ``BodyPart`` is what
    ``BodyPartExamined`` says where that alone states one.

    Parameters
    ----------
    metadata
        The run's metadata.
    same_intensities
        Whether the derivative has the run's intensities, and so their unit.
    """
    body_part = body_part_field(metadata)
    stated = metadata if body_part is None else {**metadata, "BodyPart": body_part}
    kept = {key: stated[key] for key, fits in INHERITED.items() if key in stated and fits(stated[key])}
    units = metadata.get("Units")
    if _filled_text(units) and (same_intensities or units == ARBITRARY):
        kept["Units"] = units
    return kept


def _sidecars(run: Run, folder: Path) -> list[Path]:
    try:
        names = _json_names(folder, folder.stat().st_mtime_ns)
    except OSError as error:
        raise BadData(f"{folder} cannot be read: {error.strerror}") from error
    counted = [(len(entities), name) for name in names if (entities := _entities(run, name)) is not None]
    return [folder / name for _, name in sorted(counted)]


@lru_cache(maxsize=64)
def _json_names(folder: Path, changed: int) -> tuple[str, ...]:
    """The JSON files of a folder that was last changed at that time.

    The names are cached, since every run asks for the root, which holds a folder for every participant.
    """
    with os.scandir(folder) as entries:
        return tuple(entry.name for entry in entries if entry.name.endswith(".json"))


def _entities(run: Run, name: str) -> dict[str, str] | None:
    if name == f"{run.suffix}.json":
        return {}
    parsed = parse_name(name)
    if parsed is None or parsed[1:] != (run.suffix, ".json"):
        return None
    return parsed[0] if parsed[0].items() <= run.entities.items() else None
