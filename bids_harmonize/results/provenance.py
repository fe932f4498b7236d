"""How a derivative was made: the ``BidsHarmonize`` object of its sidecar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_harmonize.bids.derivatives import PROVENANCE_KEY
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.checksum import options_hash
from bids_harmonize.files.json_fields import JsonFields, json_key
from bids_harmonize.files.json_object import read_object
from bids_harmonize.files.schema import is_flag, is_float32, is_number, is_positive, is_text, list_of
from bids_harmonize.measures.overall_curve import OverallCurve
from bids_harmonize.measures.scan_intensities import ScanIntensities
from bids_harmonize.model.edit_summary import Edit


@dataclass(frozen=True, kw_only=True)
class ProvenanceOptions(JsonFields):
    """The options of the command line that a result depends on."""

    save_transform: bool | None = json_key("SaveTransform", is_flag)
    seed: int | None = json_key("Seed", is_number)
    out_of_distribution: str | None = json_key("OutOfDistribution", is_text)
    device: str | None = json_key("Device", is_text)
    models: Sequence[str] | None = json_key("Models", list_of(is_text))
    pool: str | None = json_key("PoolSHA256", is_text)

    @property
    def sha256(self) -> str:
        """Hash of the options that have a value."""
        return options_hash(self.to_json())


@dataclass(frozen=True, kw_only=True)
class OutputScale(JsonFields):
    """What an intensity of a harmonized image means."""

    unit: float | None = json_key("Unit", is_positive)
    description: str | None = json_key("Description", is_text)


@dataclass(frozen=True, kw_only=True)
class OutOfDistribution(JsonFields):
    """Whether the scan was found to be one that the model is not meant for.

    Attributes
    ----------
    checked, flagged
        Whether the model can tell, and what it told.
    score, threshold
        From 0 (familiar) to 1, and above what a scan is flagged.
    taken_for
        The contrast that the scan shows, or "no brain", where the model can tell that.
    """

    checked: bool | None = json_key("Checked", is_flag)
    flagged: bool | None = json_key("Flagged", is_flag)
    score: float | None = json_key("Score", is_float32)
    threshold: float | None = json_key("Threshold", is_float32)
    taken_for: str | None = json_key("TakenFor", is_text)


@dataclass(frozen=True, kw_only=True)
class PoolRecord(JsonFields):
    """The pool that a scan shares its edit with.

    Attributes
    ----------
    label, rule
        What its scans have in common, and how that was found.
    sha256
        Checksum of its file.
    others
        How many other scans share the curve.
    share
        How much of the shared curve the scan takes, from 0 to 1; the rest is its own.
    gain
        Factor that brings the scan's intensities to those of the shared curve.
    distance
        How far its own curve is from the shared one: the root mean square of the difference of logarithms.
    fits
        Whether it is of the pool; else it was harmonized by itself.
    curve
        The shared curve.
    """

    label: str | None = json_key("Label", is_text)
    rule: str | None = json_key("Rule", is_text)
    sha256: str | None = json_key("SHA256", is_text)
    others: int | None = json_key("OtherScans", is_number)
    share: float | None = json_key("Share", is_number)
    gain: float | None = json_key("Gain", is_positive)
    distance: float | None = json_key("Distance", is_number)
    fits: bool | None = json_key("Fits", is_flag)
    curve: OverallCurve = json_key("SharedCurve", OverallCurve)


@dataclass(frozen=True, kw_only=True)
class Provenance(JsonFields):
    """How an image was made and what was measured on it; older releases wrote less, which is then None.

    Attributes
    ----------
    version
        Version of this program.
    command
        The command line.
    model, model_sha256
        Name of the model, and SHA-256 of its weights.
    options_sha256
        Hash of those options that the result depends on; fewer if the model is meant for the scan.
    device
        The CPU, or the name of the GPU.
    harmonized
        False if the image was passed through unchanged.
    output_scale
        Meaning of the harmonized image's intensities; empty if the image was passed through.
    warnings
        What a user should look at before the image is used.
    edit
        Summary of what harmonization did; empty if the image was passed through.
    overall_curve
        What harmonization by itself, without a pool, did to the scan as a whole.
    pool
        The pool that it shares its edit with; empty where there is none.
    voxel_sizes
        Voxel size, mm.
    elapsed_seconds
        Seconds that reading, harmonizing and writing took.
    """

    version: str | None = json_key("Version", is_text)
    command: Sequence[str] | None = json_key("Command", list_of(is_text))
    model: str | None = json_key("Model", is_text)
    model_sha256: str | None = json_key("ModelSHA256", is_text)
    input_sha256: str | None = json_key("InputSHA256", is_text)
    options: ProvenanceOptions = json_key("Options", ProvenanceOptions)
    options_sha256: str | None = json_key("OptionsSHA256", is_text)
    device: str | None = json_key("Device", is_text)
    torch_version: str | None = json_key("TorchVersion", is_text)
    cuda_version: str | None = json_key("CUDAVersion", is_text, if_empty=None)
    threads: int | None = json_key("Threads", is_number)
    seed: int | None = json_key("Seed", is_number)
    harmonized: bool | None = json_key("Harmonized", is_flag)
    output_scale: OutputScale = json_key("OutputScale", OutputScale, if_empty=None)
    out_of_distribution: OutOfDistribution = json_key("OutOfDistribution", OutOfDistribution)
    warnings: Sequence[str] = json_key("Warnings", list_of(is_text), default=())
    edit: Edit = json_key("Edit", Edit)
    overall_curve: OverallCurve = json_key("OverallCurve", OverallCurve)
    pool: PoolRecord = json_key("Pool", PoolRecord)
    voxel_sizes: Sequence[float] | None = json_key("VoxelSizes", list_of(is_positive, 3))
    intensities: ScanIntensities = json_key("Intensities", ScanIntensities)
    elapsed_seconds: float | None = json_key("ElapsedSeconds", is_float32)

    @property
    def passed_through(self) -> bool:
        """Whether the image is its source, unharmonized."""
        return self.harmonized is False


def provenance_of(path: Path, content: Mapping[str, Any]) -> Provenance:
    """The provenance in the content of a sidecar.

    Raises
    ------
    BadData
        It is another program's, or is damaged.
    """
    record = content.get(PROVENANCE_KEY)
    if not isinstance(record, Mapping):
        raise BadData(f"{path} was not written by this program; remove it or name another folder")
    return Provenance.from_json(record, path, f"{PROVENANCE_KEY}.")


def is_own_sidecar(path: Path) -> bool:
    """Whether a file is a sidecar that this program wrote, however damaged."""
    try:
        return PROVENANCE_KEY in read_object(path)
    except (BadData, NoInput):
        return False
