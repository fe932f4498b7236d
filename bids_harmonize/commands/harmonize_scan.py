"""One scan: harmonized, or passed through if the model is not meant for it, and written with its sidecar."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from nibabel.nifti1 import Nifti1Image

from bids_harmonize.bids.body_part import body_parts_disagree
from bids_harmonize.bids.contrast_agent import contrast_agent_stated_by
from bids_harmonize.bids.derivatives import sidecar
from bids_harmonize.bids.output_paths import sidecar_path, transform_path
from bids_harmonize.brain.search import find_brain
from bids_harmonize.commands.own_curve import own_curve, voxel_sizes
from bids_harmonize.commands.pools import pool_record, pool_warnings
from bids_harmonize.commands.scan_plan import ScanPlan, other_models
from bids_harmonize.errors import OUT_OF_MEMORY, BadData, HarmonizeError, is_out_of_memory
from bids_harmonize.files.atomic import write_atomically, write_json
from bids_harmonize.imaging.body_part import shows_brain
from bids_harmonize.imaging.brain import Brain, NoBrain
from bids_harmonize.imaging.loaded_scan import LoadedScan
from bids_harmonize.imaging.nifti import forms_agree, open_image, save_image
from bids_harmonize.imaging.types import Volume
from bids_harmonize.measures.intensity_profile import describe_intensities
from bids_harmonize.measures.scan_intensities import ScanIntensities
from bids_harmonize.model.contrast_detector import NO_BRAIN
from bids_harmonize.model.harmonizer import Harmonized, Model, pass_through
from bids_harmonize.model.ood_detector import OODScore
from bids_harmonize.model.transform import Transform
from bids_harmonize.results.provenance import OutOfDistribution, OutputScale, Provenance
from bids_harmonize.results.reading import Result
from bids_harmonize.results.resume import remove_output
from bids_harmonize.threads import meanwhile
from bids_harmonize.version import version

log = logging.getLogger("bids_harmonize")

# Parts of the peak memory. `BASE_BYTES` is the interpreter with its libraries; `BYTES_PER_VOXEL` holds,
# besides the stored image, both float32 volumes and the memory to read one again for the figures.
BASE_BYTES, BYTES_PER_VOXEL = 500_000_000, 14


class OutOfDistributionError(BadData):
    """The model is not meant for a scan, and such scans were to fail."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WrittenScan:
    """A scan whose files were written, and its images, which are in memory still.

    Attributes
    ----------
    result
        What its sidecar says.
    before
        The scan; None if it was passed through.
    after
        The image that was written.
    """

    result: Result
    before: LoadedScan | None
    after: LoadedScan


def harmonize_scan(plan: ScanPlan[Model]) -> WrittenScan:
    """Harmonize a scan, or do what the options ask for if the model is not meant for it.

    Raises
    ------
    OutOfDistributionError
        The model is not meant for the scan, which was to fail then; nothing was written or removed.
    HarmonizeError
        The scan cannot be harmonized, or the result not be written; nothing half-written is left.
    """
    start = time.monotonic()
    image = open_image(plan.path)
    _check_memory(image, plan.path, plan.options.mem_bytes)
    scan = LoadedScan.of_image(image)
    search = partial(find_brain, scan.block_means, scan.blocks.zooms, scan.image.affine)
    with meanwhile(search) if shows_brain(plan.model.card.body_parts) else nullcontext(None) as look:
        harmonized = plan.model.harmonize_loaded(scan, look)
        return _write_what_is_wanted(plan, scan, harmonized, start)


def _write_what_is_wanted(
    plan: ScanPlan[Model], scan: LoadedScan, harmonized: Harmonized, start: float
) -> WrittenScan:
    """Write what was harmonized, or do what the options ask for if the model is not meant for the scan."""
    score = harmonized.ood_score
    unlike = _describe_ood(plan, score) if score and score.is_ood else None
    if unlike and plan.options.out_of_distribution == "fail":
        raise OutOfDistributionError(
            f"{plan.path}: {unlike}; leave it out, or choose another --out-of-distribution"
        )
    # Once the old sidecar is gone, a run that is stopped here is done again by the next.
    plan.clear()
    if unlike and plan.options.out_of_distribution == "skip":
        _log_details(plan, harmonized)
        provenance = replace(
            _provenance(plan, harmonized),
            harmonized=False,
            warnings=[unlike, *_doubts(plan), *_grid_warnings(scan), *harmonized.remarks],
        )
        intensities = partial(_intensities, plan, scan, harmonized.brain, None)
        result = _write(plan, plan.unharmonized, pass_through(scan), provenance, intensities, start)
        return WrittenScan(result=result, before=None, after=scan)
    own = own_curve(scan, harmonized)
    pool = pool_record(plan.pool, own)
    if plan.pool is not None and pool.share:
        harmonized = harmonized.sharing(scan, plan.pool.shared.of_scan(own), pool.share)
    _log_details(plan, harmonized)
    provenance = replace(
        _provenance(plan, harmonized),
        harmonized=True,
        output_scale=_output_scale(plan.model),
        warnings=[
            *([unlike] if unlike else []),
            *_doubts(plan),
            *_enhancement(plan),
            *pool_warnings(plan.pool, pool),
            *_voxel_warnings(scan),
            *_grid_warnings(scan),
            *harmonized.remarks,
        ],
        edit=harmonized.edit,
        overall_curve=own,
        pool=pool,
    )
    transform = harmonized.transform if plan.options.save_transform else None
    intensities = partial(_intensities, plan, scan, harmonized.brain, harmonized.block_means)
    result = _write(plan, plan.output, harmonized.image, provenance, intensities, start, transform)
    after = LoadedScan(image=harmonized.image, voxels=harmonized.voxels)
    return WrittenScan(result=result, before=scan, after=after)


def memory_needed(image: Nifti1Image) -> int:
    """About how many bytes of memory harmonizing an image takes."""
    per_voxel = BYTES_PER_VOXEL + image.get_data_dtype().itemsize
    return BASE_BYTES + per_voxel * math.prod(image.shape)


def as_user_error(path: Path, error: Exception) -> HarmonizeError:
    """Whatever went wrong with a scan, as an error that may be shown."""
    if isinstance(error, HarmonizeError):
        return error
    if is_out_of_memory(error):
        return BadData(f"{path}: {OUT_OF_MEMORY}")
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return BadData(f"{path} failed unexpectedly ({reason}); please report it")


def _log_details(plan: ScanPlan[Model], result: Harmonized) -> None:
    score = "unknown" if result.ood_score is None else f"{result.ood_score.score:.3f}"
    log.debug(
        "%s: model %s on %s; out-of-distribution score %s; distance to the training distribution %.3g; "
        "median gain %.4g",
        plan.name,
        plan.model.name,
        result.device,
        score,
        result.edit.distance_to_training,
        math.nan if result.edit.gain.median is None else result.edit.gain.median,
    )


def _write(
    plan: ScanPlan[Model],
    output: Path,
    image: Nifti1Image,
    provenance: Provenance,
    intensities: Callable[[], ScanIntensities],
    start: float,
    transform: Transform | None = None,
) -> Result:
    """Write the files of a scan, the sidecar last, and log the warnings in it."""
    for warning in provenance.warnings:
        log.warning("%s: %s", plan.name, warning)
    try:
        with meanwhile(lambda: _save(image, output, plan.path)) as saved:
            measured = intensities()
            saved()
        if transform is not None:
            with write_atomically(transform_path(output)) as temporary:
                transform.save(temporary)
        elapsed = round(time.monotonic() - start, 3)
        provenance = replace(provenance, intensities=measured, elapsed_seconds=elapsed)
        content = sidecar(
            plan.metadata,
            name=plan.path.name,
            suffix=plan.suffix,
            source=plan.source,
            harmonized=not provenance.passed_through,
            skull_stripped=provenance.intensities.stripped,
            provenance=provenance.to_json(),
        )
        write_json(sidecar_path(output), content)
        log.debug("%s: written to %s in %.1f s", plan.name, output, elapsed)
        return Result(sidecar=sidecar_path(output), metadata=content, provenance=provenance)
    except BaseException:
        # An image without its sidecar is half an output, and no valid derivative.
        with suppress(HarmonizeError):
            remove_output(output)
        raise


def _save(image: Nifti1Image, output: Path, source: Path) -> None:
    with write_atomically(output) as temporary:
        save_image(image, temporary, source)


def _provenance(plan: ScanPlan[Model], result: Harmonized) -> Provenance:
    """How an image is made, harmonized or passed through."""
    model, options = plan.model, plan.options
    cuda = result.device.type == "cuda"
    in_distribution = not result.out_of_distribution
    return Provenance(
        version=version(),
        command=options.command,
        model=model.name,
        model_sha256=model.sha256,
        input_sha256=plan.input_sha256,
        options=replace(
            plan.relevant_options(in_distribution=False), device=options.device, models=options.models
        ),
        options_sha256=plan.relevant_options(in_distribution=in_distribution).sha256,
        device=torch.cuda.get_device_name(result.device) if cuda else "cpu",
        torch_version=torch.__version__,
        cuda_version=torch.version.cuda if cuda else None,
        threads=torch.get_num_threads(),
        seed=options.seed,
        out_of_distribution=_out_of_distribution(result.ood_score),
        voxel_sizes=voxel_sizes(result.image),
    )


def _output_scale(model: Model) -> OutputScale:
    scale = model.card.output_scale
    return OutputScale(unit=scale.unit, description=scale.description)


def _intensities(
    plan: ScanPlan[Model], before: LoadedScan, brain: Brain | NoBrain, after: Volume | None
) -> ScanIntensities:
    """What the group level compares sites by; `after` are the means of the harmonized image's blocks."""
    stated = plan.metadata.get("SkullStripped")
    return describe_intensities(
        before.block_means,
        after,
        before.scale,
        before.blocks.zooms,
        brain=brain,
        head=shows_brain(plan.model.card.body_parts),
        stripped=stated if isinstance(stated, bool) else None,
    )


def _check_memory(image: Nifti1Image, path: Path, limit: int | None) -> None:
    needed = memory_needed(image)
    if limit is not None and needed > limit:
        raise BadData(f"{path} needs about {needed / 1e9:.1f} GB, more than --mem allows; allow more")


def _voxel_warnings(scan: LoadedScan) -> list[str]:
    """What was done to voxels of a scan so that it could be harmonized."""
    found = []
    if scan.replaced:
        found.append(f"{scan.replaced} voxels that are not finite were set to 0")
    if scan.negative:
        found.append(f"{scan.negative} negative voxels were set to 0")
    return found


def _grid_warnings(scan: LoadedScan) -> list[str]:
    """What is odd of where the voxels lie, which may also be why a scan is out of distribution."""
    found = []
    header = scan.image.header
    if not int(header["qform_code"]) and not int(header["sform_code"]):
        found.append(
            "its orientation is unknown (qform and sform codes are 0); it was taken as the header's default"
        )
    if not forms_agree(scan.image):
        found.append("its qform and sform disagree; the sform was used, as nibabel does")
    if min(scan.voxels.shape) < 4:
        found.append("it has fewer than 4 slices, too few to tell one tissue from another with confidence")
    return found


def _doubts(plan: ScanPlan[Model]) -> list[str]:
    """What is doubtful of the choice of the model."""
    disagreement = body_parts_disagree(plan.metadata)
    return [] if disagreement is None else [disagreement]


def _enhancement(plan: ScanPlan[Model]) -> list[str]:
    """What a user should know of a scan with a contrast agent."""
    stated_by = contrast_agent_stated_by(plan.path.name, plan.metadata)
    if stated_by is None:
        return []
    return [
        f"it was made with a contrast agent ({stated_by}), and enhancement may be compressed: its ratio to "
        "other tissue may have changed by some percent, so measure it on the original scan"
    ]


def _describe_ood(plan: ScanPlan[Model], ood_score: OODScore) -> str:
    """The warning about a scan that the model is not meant for."""
    bundled = " or ".join(other_models(plan.model, plan.metadata))
    return (
        f"it is unlike what the model {plan.model.name} is meant for: {_what_else(ood_score)} "
        f"(score {ood_score.score:.3f}; up to {ood_score.threshold:.3f} is familiar); "
        f"--model chooses another model{f', such as {bundled}' if bundled else ''}"
    )


def _what_else(ood_score: OODScore) -> str:
    """What a scan may be that is not what the model is meant for."""
    if ood_score.taken_for in (None, NO_BRAIN):
        return "another contrast or body part, or a small part of one"
    return f"it looks like {ood_score.taken_for}, as does the brain of an infant, whose contrast is immature"


def _out_of_distribution(ood_score: OODScore | None) -> OutOfDistribution:
    if ood_score is None:
        return OutOfDistribution(checked=False)
    score, threshold = (round(value, 4) for value in (ood_score.score, ood_score.threshold))
    return OutOfDistribution(
        checked=True,
        flagged=ood_score.is_ood,
        score=score,
        threshold=threshold,
        taken_for=ood_score.taken_for,
    )
