"""One scan: harmonized, or passed through if the model is not meant for it, and written with its sidecar."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image

from bids_harmonize.bids import derivatives
from bids_harmonize.distribution import describe_distribution
from bids_harmonize.errors import BadData, HarmonizeError, lacks_memory
from bids_harmonize.image import Voxels, as_magnitude, open_image, read_voxels, save_image, zooms
from bids_harmonize.model import Harmonized, Model, Transform, unchanged
from bids_harmonize.plan import Plan
from bids_harmonize.recognition import Recognition
from bids_harmonize.reference import HEADS
from bids_harmonize.version import version

log = logging.getLogger("bids_harmonize")

# Peak memory: the interpreter with its libraries; per voxel, besides the image as it is stored, the volumes
# before and after, float32, and what the page about them takes to read one of them again.
BASE_BYTES, BYTES_PER_VOXEL = 500_000_000, 14


class Unlike(BadData):
    """The model is not meant for a scan, and such scans were to fail."""


def process(plan: Plan[Model]) -> bool:
    """Harmonize a scan, or do what the options ask for if the model is not meant for it.

    Returns
    -------
    bool
        Whether it was harmonized; else it was passed through.

    Raises
    ------
    Unlike
        The model is not meant for the scan, which was to fail then; nothing was written or removed.
    HarmonizeError
        The scan cannot be harmonized, or the result not be written; nothing half-written is left.
    """
    start = time.monotonic()
    image = open_image(plan.path)
    _check_memory(image, plan.path, plan.options.mem_bytes)
    voxels = read_voxels(image)
    result = plan.model.harmonize(image, voxels)
    _tell_how(plan, result)
    recognition = result.recognition
    unlike = _unlike(plan.model, recognition) if recognition and recognition.flagged else None
    if unlike and plan.options.out_of_distribution == "fail":
        raise Unlike(f"{plan.path}: {unlike}; leave it out, or choose another --out-of-distribution")
    # Once the old sidecar is gone, a run that is stopped here is done again by the next.
    plan.clear()
    if unlike and plan.options.out_of_distribution == "skip":
        record = _record(plan, result, [unlike, *result.remarks]) | {
            "Harmonized": False,
            "OutputScale": None,
            "Intensities": _intensities(plan, image, voxels, result, harmonized=False),
        }
        _write(plan, plan.unharmonized, unchanged(image), record, start)
        return False
    warnings = [*([unlike] if unlike else []), *_warnings(image, result.summary), *result.remarks]
    record = _record(plan, result, warnings) | {
        "Edit": result.summary,
        "Intensities": _intensities(plan, image, voxels, result, harmonized=True),
    }
    transform = result.transform if plan.options.save_transform else None
    _write(plan, plan.output, result.image, record, start, transform)
    return True


def memory_needed(image: Nifti1Image) -> int:
    """About how many bytes of memory harmonizing an image takes."""
    per_voxel = BYTES_PER_VOXEL + image.get_data_dtype().itemsize
    return BASE_BYTES + per_voxel * math.prod(image.shape)


def explained(path: Path, error: Exception) -> HarmonizeError:
    """Whatever went wrong with a scan, as an error that may be shown."""
    if isinstance(error, HarmonizeError):
        return error
    if lacks_memory(error):
        return BadData(f"{path} needs more memory than there is; give it more")
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return BadData(f"{path} failed unexpectedly ({said}); please report it")


def _tell_how(plan: Plan[Model], result: Harmonized) -> None:
    score = "unknown" if result.recognition is None else f"{result.recognition.score:.3f}"
    log.debug(
        "%s: model %s on %s; out-of-distribution score %s; distance to the training distribution %.3g; "
        "median gain %.4g",
        plan.name,
        plan.model.name,
        result.device,
        score,
        result.summary["DistanceToTrainingDistribution"],
        result.summary["Gain"].get("Median", math.nan),
    )


def _write(
    plan: Plan[Model],
    output: Path,
    image: Nifti1Image,
    record: dict[str, Any],
    start: float,
    transform: Transform | None = None,
) -> None:
    """Write the files of a scan, the sidecar last, and tell the warnings in it."""
    for warning in record["Warnings"]:
        log.warning("%s: %s", plan.name, warning)
    try:
        with derivatives.write_atomically(output) as temporary:
            save_image(image, temporary)
        if transform is not None:
            with derivatives.write_atomically(derivatives.transform_path(output)) as temporary:
                transform.save(temporary)
        record["ElapsedSeconds"] = round(time.monotonic() - start, 3)
        content = derivatives.sidecar(plan.metadata, suffix=plan.suffix, source=plan.source, harmonize=record)
        derivatives.write_json(derivatives.sidecar_path(output), content)
        log.debug("%s: written to %s in %.1f s", plan.name, output, record["ElapsedSeconds"])
    except BaseException:
        # An image without its sidecar is half an output, and no valid derivative.
        with suppress(HarmonizeError):
            derivatives.remove_output(output)
        raise


def _record(plan: Plan[Model], result: Harmonized, warnings: Sequence[str]) -> dict[str, Any]:
    """What the sidecar says of a scan, besides the edit."""
    model, options = plan.model, plan.options
    cuda = result.device.type == "cuda"
    asked = {"Device": options.device, "Models": list(options.models)}
    return {
        "Version": version(),
        "Command": list(options.command),
        "Model": model.name,
        "ModelSHA256": model.sha256,
        "InputSHA256": plan.input_sha256,
        "Options": plan.relevant_options(familiar=False) | asked,
        "OptionsSHA256": plan.options_sha256(familiar=not result.out_of_distribution),
        "Device": torch.cuda.get_device_name(result.device) if cuda else "cpu",
        "TorchVersion": torch.__version__,
        "CUDAVersion": torch.version.cuda if cuda else None,
        "Threads": torch.get_num_threads(),
        "Seed": options.seed,
        "Harmonized": True,
        "OutputScale": model.card["OutputScale"],
        "OutOfDistribution": _told(result.recognition),
        "Warnings": list(warnings),
    }


def _intensities(
    plan: Plan[Model], image: Nifti1Image, voxels: Voxels, result: Harmonized, *, harmonized: bool
) -> dict[str, Any]:
    """What the group level compares sites by."""
    before = as_magnitude(voxels)[0]
    return describe_distribution(
        before,
        np.asarray(result.image.dataobj).reshape(before.shape) if harmonized else None,
        result.transform.scale,
        zooms(image),
        modality=str(plan.model.card["Modality"]),
        head=bool(HEADS & set(plan.model.card["BodyParts"])),
    )


def _check_memory(image: Nifti1Image, path: Path, limit: int | None) -> None:
    needed = memory_needed(image)
    if limit is not None and needed > limit:
        raise BadData(f"{path} needs about {needed / 1e9:.1f} GB, more than --mem allows; allow more")


def _warnings(image: Nifti1Image, summary: Mapping[str, Any]) -> list[str]:
    """What a user should know of a scan that was harmonized all the same."""
    found = []
    if summary["NonFiniteVoxelsSetToZero"]:
        found.append(f"{summary['NonFiniteVoxelsSetToZero']} voxels that are not finite were set to 0")
    if summary["NegativeVoxelsSetToZero"]:
        found.append(f"{summary['NegativeVoxelsSetToZero']} negative voxels were set to 0")
    if not int(image.header["qform_code"]) and not int(image.header["sform_code"]):
        found.append(
            "its orientation is unknown (qform and sform codes are 0); it was taken as the header's default"
        )
    if min(image.shape[:3]) < 4:
        found.append("it has fewer than 4 slices, too few to tell one tissue from another with confidence")
    return found


def _unlike(model: Model, recognition: Recognition) -> str:
    """What to say of a scan that the model is not meant for."""
    return (
        f"it is unlike what the model {model.name} is meant for: another contrast or body part, or a small "
        f"part of one (score {recognition.score:.3f}; up to {recognition.threshold:.3f} is familiar)"
    )


def _told(recognition: Recognition | None) -> dict[str, Any]:
    """What the sidecar says of it."""
    if recognition is None:
        return {"Checked": False}
    score, threshold = (round(value, 4) for value in (recognition.score, recognition.threshold))
    return {"Checked": True, "Flagged": recognition.flagged, "Score": score, "Threshold": threshold}
