"""The three levels, and the loop over runs, in which one failure never stops another."""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import nibabel as nib
import torch
from nibabel.nifti1 import Nifti1Image

from bids_harmonize.bids import derivatives
from bids_harmonize.bids.selection import Filters, Run, check_dataset, conflicts, select_runs
from bids_harmonize.bids.sidecars import read_metadata
from bids_harmonize.cli import Options
from bids_harmonize.errors import BadData, CannotCreate, HarmonizeError, InputOutputError, NothingSelected
from bids_harmonize.image import open_image
from bids_harmonize.learn import learn
from bids_harmonize.model import Harmonized, Model, bundled_models
from bids_harmonize.report.results import write_group_tables
from bids_harmonize.version import version

log = logging.getLogger("bids_harmonize")

# Peak memory: the interpreter with its libraries, and per voxel the image as stored, scaled, and harmonized.
BASE_BYTES, BYTES_PER_VOXEL = 500_000_000, 24
# Farther from the training inputs than this, an edit deserves a look; typical training inputs have 1.
FAR_FROM_TRAINING = 4.0
REPORTED_PACKAGES = ("torch", "numpy", "nibabel", "pybids", "safetensors", "scipy")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run: `state` is done, skipped, passed over or failed."""

    run: Run
    state: str
    sentence: str = ""
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done with a run; no model means that it is passed over, for `reason`."""

    run: Run
    output: Path
    metadata: Mapping[str, Any]
    model: Model | None
    fingerprint: Mapping[str, str]
    complete: bool
    reason: str = ""


def run(options: Options) -> int:
    """Run the level that the options ask for and return the exit code."""
    _start_logging(options.verbosity)
    for warning in check_dataset(options.bids_dir, options.skip_validation):
        log.warning(warning)
    derivatives.check_locations(options.output_dir, options.bids_dir, work_dir=options.work_dir)
    torch.set_num_threads(options.omp_nthreads)
    levels = {"participant": _participant, "group": _group, "train": _train}
    return levels[options.level](options)


def _participant(options: Options) -> int:
    if options.reports_only:
        return _group(options)
    runs = _select(options)
    models = _models(options)
    if options.dry_run:
        return _dry_run(options, runs, models)
    _prepare(options)
    outcomes = list(_harmonize_all(options, runs, models))
    return _conclude(options, runs, outcomes)


def _group(options: Options) -> int:
    """Tables of the sidecars that are there."""
    tables = write_group_tables(options.output_dir, write=not options.dry_run)
    if not tables:
        raise NothingSelected(
            f"{options.output_dir} holds no harmonized scan; run the participant level first"
        )
    for path, rows in tables.items():
        print(f"{path}: {rows} scans")
    return 0


def _train(options: Options) -> int:
    """Learn a model from the scans of the dataset as the reference group."""
    runs = _select(options)
    if options.dry_run:
        print(*(f"{run.relative} -> reference candidate" for run in runs), sep="\n")
        return 0
    derivatives.prepare_output(options.output_dir, options.bids_dir, work_dir=options.work_dir)
    for modality in dict.fromkeys(run.modality for run in runs):
        scans = [run for run in runs if run.modality == modality]
        weights = learn(
            scans,
            modality,
            options.output_dir,
            size=options.reference_size,
            steps=options.steps,
            seed=options.seed,
            progress=log.info,
        )
        print(f"model for {modality}: {weights}")
    return 0


def _select(options: Options) -> list[Run]:
    filters = Filters(
        participants=options.participants,
        excluded=options.excluded,
        sessions=options.sessions,
        modalities=options.modalities,
        bids_filters=options.bids_filters,
    )
    return select_runs(options.bids_dir, filters, options.database_dir)


def _models(options: Options) -> list[Model]:
    """The models asked for, before the bundled ones for what they leave."""
    return [Model.load(model, options.device) for model in (*options.models, *bundled_models())]


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


def _plan(options: Options, run: Run, models: Sequence[Model]) -> Plan:
    metadata = read_metadata(run)
    output = derivatives.output_path(options.output_dir, run)
    part = metadata.get("BodyPart")
    part = part.strip() if isinstance(part, str) and part.strip() else None
    model = next((model for model in models if model.serves(run.modality, part)), None)
    if model is None:
        what = f"{run.modality} of {part}" if part else run.modality
        reason = f"{run.relative} is passed over: there is no model for {what}; give one with --model"
        return Plan(
            run=run,
            output=output,
            metadata=metadata,
            model=None,
            fingerprint={},
            complete=False,
            reason=reason,
        )
    fingerprint = {
        "input_sha256": derivatives.file_sha256(run.path),
        "model_sha256": model.sha256,
        "options_hash": derivatives.options_hash(_relevant(options)),
    }
    complete = not options.force and derivatives.completed(output, **fingerprint)
    return Plan(
        run=run, output=output, metadata=metadata, model=model, fingerprint=fingerprint, complete=complete
    )


def _relevant(options: Options) -> dict[str, Any]:
    """The options that decide what is written for a run."""
    return {"SaveTransform": options.save_transform, "Seed": options.seed}


def _dry_run(options: Options, runs: Sequence[Run], models: Sequence[Model]) -> int:
    conflicting = conflicts(runs)
    for run in runs:
        try:
            if run.path in conflicting:
                raise BadData(conflicting[run.path])
            plan = _plan(options, run, models)
        except HarmonizeError as error:
            print(f"{run.relative} would fail: {error}")
            continue
        if plan.model is None:
            print(plan.reason)
        elif plan.complete:
            print(f"{run.relative} is done already")
        else:
            print(f"{run.relative} would be harmonized with the model {plan.model.name}, into")
            print(*(f"    {path}" for path in _files(options, plan.output)), sep="\n")
    return 0


def _files(options: Options, output: Path) -> list[Path]:
    transform = [derivatives.transform_path(output)] if options.save_transform else []
    return [output, *transform, derivatives.sidecar_path(output)]


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
        if run.path in conflicting:
            raise BadData(conflicting[run.path])
        plan = _plan(options, run, models)
        if plan.model is None:
            return Outcome(run=run, state="passed over", sentence=plan.reason)
        if plan.complete:
            return Outcome(run=run, state="skipped", sentence=f"{run.relative} is done already")
        _harmonize(options, plan, plan.model)
    except HarmonizeError as error:
        return _failed(options, run, str(error), error)
    except MemoryError as error:
        return _failed(options, run, f"{run.path} needs more memory than there is", error)
    except Exception as error:
        sentence = f"{run.path} failed unexpectedly ({type(error).__name__}: {error}); please report it"
        return _failed(options, run, sentence, error)
    return Outcome(run=run, state="done", sentence=f"{run.relative} is harmonized")


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


def _harmonize(options: Options, plan: Plan, model: Model) -> None:
    start = time.monotonic()
    image = open_image(plan.run.path)
    _check_memory(image, plan.run.path, options.mem_bytes)
    result = model.harmonize(image)
    warnings = _warnings(image, result.summary)
    for warning in warnings:
        log.warning("%s: %s", plan.run.relative, warning)
    # Once the old sidecar is gone, a run that is stopped here is done again by the next.
    derivatives.remove_output(plan.output)
    with derivatives.write_atomically(plan.output) as temporary:
        nib.save(result.image, temporary)
    if options.save_transform:
        with derivatives.write_atomically(derivatives.transform_path(plan.output)) as temporary:
            result.transform.save(temporary)
    record = _record(options, plan, model, result, warnings) | {
        "ElapsedSeconds": round(time.monotonic() - start, 3)
    }
    content = derivatives.sidecar(plan.run, plan.metadata, harmonize=record)
    derivatives.write_json(derivatives.sidecar_path(plan.output), content)


def _record(
    options: Options, plan: Plan, model: Model, result: Harmonized, warnings: Sequence[str]
) -> dict[str, Any]:
    """What the sidecar says of the edit."""
    cuda = model.device.type == "cuda"
    return {
        "Version": version(),
        "Model": model.name,
        "ModelSHA256": model.sha256,
        "InputSHA256": plan.fingerprint["input_sha256"],
        "Options": _relevant(options),
        "OptionsSHA256": plan.fingerprint["options_hash"],
        "Device": torch.cuda.get_device_name(model.device) if cuda else "cpu",
        "TorchVersion": torch.__version__,
        "CUDAVersion": torch.version.cuda if cuda else None,
        "Threads": torch.get_num_threads(),
        "Seed": options.seed,
        "OutputScale": model.card["OutputScale"],
        "Edit": result.summary,
        "Warnings": list(warnings),
    }


def _check_memory(image: Nifti1Image, path: Path, limit: int | None) -> None:
    voxels = 1
    for count in image.shape:
        voxels *= count
    needed = BASE_BYTES + BYTES_PER_VOXEL * voxels
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
    if summary["DistanceToTrainingDistribution"] > FAR_FROM_TRAINING:
        found.append("it is unlike what the model was trained on; look at the result before you use it")
    return found


def _conclude(options: Options, runs: Sequence[Run], outcomes: Sequence[Outcome]) -> int:
    counts = {state: 0 for state in ("done", "skipped", "passed over", "failed")}
    for outcome in outcomes:
        counts[outcome.state] += 1
    failures = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failures:
        print("failed:", *(f"    {outcome.sentence}" for outcome in failures), sep="\n")
    print(
        f"{counts['done']} harmonized, {counts['skipped']} done before, {counts['passed over']} passed over, "
        f"{counts['failed']} failed, {len(runs) - len(outcomes)} not started"
    )
    print(f"results are in {options.output_dir}")
    return max((outcome.exit_code for outcome in failures), default=0)


def _start_logging(verbosity: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s" if verbosity else "%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG if verbosity else logging.INFO)
    log.propagate = False
