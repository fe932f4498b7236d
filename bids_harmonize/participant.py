"""The participant level: every run is harmonized, skipped, passed over or named as failed."""

from __future__ import annotations

import logging
import math
import os
import platform
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image

from bids_harmonize.bids import derivatives
from bids_harmonize.bids.selection import Run, conflicts
from bids_harmonize.bids.sidecars import read_metadata
from bids_harmonize.distribution import describe_distribution
from bids_harmonize.errors import BadData, CannotCreate, HarmonizeError, InputOutputError
from bids_harmonize.image import as_magnitude, open_image, read_voxels, zooms
from bids_harmonize.model import Harmonized, Model, Transform, bundled_models, unchanged
from bids_harmonize.options import Options
from bids_harmonize.recognition import Recognition
from bids_harmonize.reference import HEADS
from bids_harmonize.version import version

log = logging.getLogger("bids_harmonize")

# Peak memory: the interpreter with its libraries; per voxel, besides the image as it is stored, three volumes
# of float32 (read, scaled, harmonized) and what goes with a part of them.
BASE_BYTES, BYTES_PER_VOXEL = 500_000_000, 14
REPORTED_PACKAGES = ("torch", "numpy", "nibabel", "pybids", "safetensors", "scipy")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run: `state` is one of `STATES`, or `UNHARMONIZED`."""

    run: Run
    state: str
    sentence: str
    exit_code: int = 0


STATES = {"done": "harmonized", "skipped": "done before", "passed over": "passed over", "failed": "failed"}
UNHARMONIZED = "left unharmonized"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, what its sidecars say, the model for it, and where the result goes.

    Attributes
    ----------
    output, unharmonized
        The image if it is harmonized, and if it is passed through.
    files
        All files of a harmonized run.
    fingerprint
        Hashes of input and model.
    options
        Hashes of the options that matter: of a scan that the model is meant for (True) and another (False).
    """

    run: Run
    metadata: Mapping[str, Any]
    model: Model
    output: Path
    unharmonized: Path
    files: tuple[Path, ...]
    fingerprint: Mapping[str, str]
    options: Mapping[bool, str]

    @property
    def complete(self) -> bool:
        """Whether the result is there already, from the same input, model and options."""
        if self._done(self.unharmonized, familiar=False):
            return True
        there = all(path.is_file() for path in self.files)
        return there and any(self._done(self.output, familiar=familiar) for familiar in self.options)

    def _done(self, output: Path, *, familiar: bool) -> bool:
        return derivatives.completed(output, **self.fingerprint, options_hash=self.options[familiar])

    def clear(self) -> None:
        """Remove what an earlier run left, sidecars first; a run that is stopped then is done again."""
        derivatives.remove_output(self.output)
        derivatives.remove_output(self.unharmonized)


class PassedOver(Exception):
    """There is no model for a run; not a failure."""


def harmonize_runs(options: Options, runs: Sequence[Run]) -> int:
    """Harmonize the runs and return the exit code."""
    derivatives.refuse_foreign(options.output_dir)
    models = [Model.load(model, options.device) for model in (*options.models, *bundled_models())]
    if options.dry_run:
        _tell(options, runs, models)
        return 0
    _prepare(options)
    return _conclude(options, runs, list(_harmonize_all(options, runs, models)))


def _prepare(options: Options) -> None:
    derivatives.prepare_output(options.output_dir, options.bids_dir, work_dir=options.work_dir)
    container = derivatives.container(os.environ, version=version())
    derivatives.write_dataset_files(
        options.output_dir, options.bids_dir, version=version(), container=container
    )
    versions = {name: packages.version(name) for name in REPORTED_PACKAGES}
    versions |= {
        "bids-harmonize": version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    derivatives.write_run_log(options.output_dir, options.command, os.environ, versions)


def _plan(options: Options, run: Run, models: Sequence[Model], conflicting: Mapping[Path, str]) -> Plan:
    """Decide what to do with a run; raises `PassedOver` or what is wrong with it."""
    if run.path in conflicting:
        raise BadData(conflicting[run.path])
    metadata = read_metadata(run)
    model = _model_for(run, metadata, models)
    fingerprint = {
        "input_sha256": derivatives.file_sha256(run.path),
        "model_sha256": model.sha256,
    }
    output = derivatives.output_path(options.output_dir, run)
    transform = [derivatives.transform_path(output)] if options.save_transform else []
    return Plan(
        run=run,
        metadata=metadata,
        model=model,
        output=output,
        unharmonized=derivatives.unharmonized_path(options.output_dir, run),
        files=(output, *transform, derivatives.sidecar_path(output)),
        fingerprint=fingerprint,
        options={like: derivatives.options_hash(_relevant(options, familiar=like)) for like in (True, False)},
    )


def _model_for(run: Run, metadata: Mapping[str, Any], models: Sequence[Model]) -> Model:
    part = metadata.get("BodyPart")
    part = part.strip() if isinstance(part, str) and part.strip() else None
    for model in models:
        if model.serves(run.modality, part):
            return model
    what = f"{run.modality} of {part}" if part else run.modality
    raise PassedOver(f"{run.relative} is passed over: there is no model for {what}; give one with --model")


def _relevant(options: Options, *, familiar: bool) -> dict[str, Any]:
    """The options that decide what is written for a run."""
    relevant: dict[str, Any] = {"SaveTransform": options.save_transform, "Seed": options.seed}
    return relevant if familiar else relevant | {"OutOfDistribution": options.out_of_distribution}


def _tell(options: Options, runs: Sequence[Run], models: Sequence[Model]) -> None:
    """Print what would be done, and do nothing."""
    print("about the dataset, where missing or out of date:")
    for name in (*derivatives.DATASET_FILES, "logs/run_*.json"):
        print(f"    {options.output_dir / name}")
    conflicting = conflicts(runs)
    for run in runs:
        try:
            plan = _plan(options, run, models, conflicting)
        except PassedOver as reason:
            print(reason)
        except HarmonizeError as error:
            print(f"{run.relative} would fail: {error}")
        else:
            _tell_plan(options, plan)


def _tell_plan(options: Options, plan: Plan) -> None:
    if plan.complete and not options.force:
        print(f"{plan.run.relative} is done already")
        return
    print(f"{plan.run.relative} would be harmonized with the model {plan.model.name}, into")
    for path in plan.files:
        print(f"    {path}")
    if options.out_of_distribution == "skip" and plan.model.recognizer is not None:
        print(f"  or, if it is unlike what the model is meant for, unchanged into\n    {plan.unharmonized}")


def _harmonize_all(options: Options, runs: Sequence[Run], models: Sequence[Model]) -> Iterator[Outcome]:
    conflicting = conflicts(runs)
    for number, run in enumerate(runs, start=1):
        start = time.monotonic()
        outcome = _attempt(options, run, models, conflicting)
        seconds = time.monotonic() - start
        level = logging.ERROR if outcome.state == "failed" else logging.INFO
        log.log(level, "%d of %d, %.1f s: %s", number, len(runs), seconds, outcome.sentence)
        yield outcome
        if outcome.state == "failed" and options.stop_on_first_crash:
            return


def _attempt(options: Options, run: Run, models: Sequence[Model], conflicting: Mapping[Path, str]) -> Outcome:
    try:
        plan = _plan(options, run, models, conflicting)
        if plan.complete and not options.force:
            return Outcome(run=run, state="skipped", sentence=f"{run.relative} is done already")
        return _process(options, plan)
    except PassedOver as reason:
        return Outcome(run=run, state="passed over", sentence=str(reason))
    except HarmonizeError as error:
        return _failed(options, run, str(error), error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        return _failed(options, run, f"{run.path} needs more memory than there is; give it more", error)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        sentence = f"{run.path} failed unexpectedly ({said}); please report it"
        return _failed(options, run, sentence, error)


def _failed(options: Options, run: Run, sentence: str, error: Exception) -> Outcome:
    details = "".join(traceback.format_exception(error))
    try:
        crash = derivatives.write_crash(options.output_dir, run, f"{sentence}\n\n{details}")
        log.debug("details are in %s", crash)
    except HarmonizeError as second:
        # A full disk must not hide what happened first.
        log.error("no crash file could be written: %s", second)
    code = error.exit_code if isinstance(error, InputOutputError | CannotCreate) else BadData.exit_code
    return Outcome(run=run, state="failed", sentence=sentence, exit_code=code)


def _process(options: Options, plan: Plan) -> Outcome:
    """Harmonize a run, or do what the options ask for if the model is not meant for it."""
    start = time.monotonic()
    image = open_image(plan.run.path)
    _check_memory(image, plan.run.path, options.mem_bytes)
    result = plan.model.harmonize(image)
    recognition = result.recognition
    unlike = _unlike(plan.model, recognition) if recognition and recognition.flagged else None
    # Once the old sidecar is gone, a run that is stopped here is done again by the next.
    plan.clear()
    if unlike and options.out_of_distribution == "fail":
        raise BadData(f"{plan.run.path}: {unlike}; leave it out, or choose another --out-of-distribution")
    if unlike and options.out_of_distribution == "skip":
        record = _record(options, plan, result, [unlike]) | {
            "Harmonized": False,
            "OutputScale": None,
            "Intensities": _intensities(plan, image, result, harmonized=False),
        }
        _write(plan, plan.unharmonized, unchanged(image), record, start)
        return Outcome(run=plan.run, state=UNHARMONIZED, sentence=f"{plan.run.relative} is {UNHARMONIZED}")
    warnings = ([unlike] if unlike else []) + _warnings(image, result.summary)
    record = _record(options, plan, result, warnings) | {
        "Edit": result.summary,
        "Intensities": _intensities(plan, image, result, harmonized=True),
    }
    transform = result.transform if options.save_transform else None
    _write(plan, plan.output, result.image, record, start, transform)
    return Outcome(run=plan.run, state="done", sentence=f"{plan.run.relative} is harmonized")


def _write(
    plan: Plan,
    output: Path,
    image: Nifti1Image,
    record: dict[str, Any],
    start: float,
    transform: Transform | None = None,
) -> None:
    """Write the files of a run, the sidecar last, and tell the warnings in it."""
    for warning in record["Warnings"]:
        log.warning("%s: %s", plan.run.relative, warning)
    try:
        with derivatives.write_atomically(output) as temporary:
            nib.save(image, temporary)
        if transform is not None:
            with derivatives.write_atomically(derivatives.transform_path(output)) as temporary:
                transform.save(temporary)
        record["ElapsedSeconds"] = round(time.monotonic() - start, 3)
        content = derivatives.sidecar(plan.run, plan.metadata, harmonize=record)
        derivatives.write_json(derivatives.sidecar_path(output), content)
    except BaseException:
        # An image without its sidecar is half an output, and no valid derivative.
        with suppress(HarmonizeError):
            derivatives.remove_output(output)
        raise


def _record(options: Options, plan: Plan, result: Harmonized, warnings: Sequence[str]) -> dict[str, Any]:
    """What the sidecar says of a run, besides the edit."""
    model = plan.model
    cuda = model.device.type == "cuda"
    asked = {"Device": options.device, "Models": list(options.models)}
    return {
        "Version": version(),
        "Model": model.name,
        "ModelSHA256": model.sha256,
        "InputSHA256": plan.fingerprint["input_sha256"],
        "Options": _relevant(options, familiar=False) | asked,
        "OptionsSHA256": plan.options[not result.out_of_distribution],
        "Device": torch.cuda.get_device_name(model.device) if cuda else "cpu",
        "TorchVersion": torch.__version__,
        "CUDAVersion": torch.version.cuda if cuda else None,
        "Threads": torch.get_num_threads(),
        "Seed": options.seed,
        "Harmonized": True,
        "OutputScale": model.card["OutputScale"],
        "OutOfDistribution": _told(result.recognition),
        "Warnings": list(warnings),
    }


def _intensities(plan: Plan, image: Nifti1Image, result: Harmonized, *, harmonized: bool) -> dict[str, Any]:
    """What the group level compares sites by."""
    # Read again: kept beside all that harmonizing needs, the scan would raise the peak of memory.
    before = as_magnitude(read_voxels(image))[0]
    return describe_distribution(
        before,
        np.asarray(result.image.dataobj).reshape(before.shape) if harmonized else None,
        result.transform.scale,
        zooms(image),
        modality=plan.run.modality,
        head=bool(HEADS & set(plan.model.card["BodyParts"])),
    )


def _check_memory(image: Nifti1Image, path: Path, limit: int | None) -> None:
    per_voxel = BYTES_PER_VOXEL + image.get_data_dtype().itemsize
    needed = BASE_BYTES + per_voxel * math.prod(image.shape)
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


def _conclude(options: Options, runs: Sequence[Run], outcomes: Sequence[Outcome]) -> int:
    counts = Counter(outcome.state for outcome in outcomes)
    failures = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failures:
        print("failed:", *(f"    {outcome.sentence}" for outcome in failures), sep="\n")
    summary = [f"{counts[state]} {word}" for state, word in STATES.items()]
    summary += [f"{len(runs) - len(outcomes)} not started", f"{counts[UNHARMONIZED]} {UNHARMONIZED}"]
    print(", ".join(summary))
    print(f"results are in {options.output_dir}")
    return max((outcome.exit_code for outcome in failures), default=0)
