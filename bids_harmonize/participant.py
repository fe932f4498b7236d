"""The participant level: every run is harmonized, skipped, passed over or named as failed."""

from __future__ import annotations

import logging
import os
import platform
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata as packages
from pathlib import Path

from bids_harmonize.bids import derivatives
from bids_harmonize.bids.selection import Run, conflicts
from bids_harmonize.bids.sidecars import read_metadata
from bids_harmonize.errors import BadData, CannotCreate, HarmonizeError, InputOutputError
from bids_harmonize.model import Model, bundled_models
from bids_harmonize.options import Options
from bids_harmonize.scan import NoModel, Plan, Unlike, explained, model_for, process
from bids_harmonize.version import version

log = logging.getLogger("bids_harmonize")

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
    try:
        model = model_for(run.modality, metadata, models)
    except NoModel as reason:
        raise PassedOver(f"{run.relative} is passed over: {reason}") from reason
    return Plan(
        path=run.path,
        name=str(run.relative),
        suffix=run.suffix,
        source=derivatives.source_uri(run),
        metadata=metadata,
        model=model,
        input_sha256=derivatives.file_sha256(run.path),
        output=derivatives.output_path(options.output_dir, run),
        unharmonized=derivatives.unharmonized_path(options.output_dir, run),
        options=options,
    )


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
        print(f"{plan.name} is done already")
        return
    print(f"{plan.name} would be harmonized with the model {plan.model.name}, into")
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
        return _process(run, plan)
    except PassedOver as reason:
        return Outcome(run=run, state="passed over", sentence=str(reason))
    except Exception as error:
        return _failed(options, run, error)


def _process(run: Run, plan: Plan) -> Outcome:
    try:
        harmonized = process(plan)
    except Unlike:
        # What was made of it when such scans were not to fail.
        plan.clear()
        raise
    if harmonized:
        return Outcome(run=run, state="done", sentence=f"{plan.name} is harmonized")
    return Outcome(run=run, state=UNHARMONIZED, sentence=f"{plan.name} is {UNHARMONIZED}")


def _failed(options: Options, run: Run, error: Exception) -> Outcome:
    told = explained(run.path, error)
    details = "".join(traceback.format_exception(error))
    try:
        crash = derivatives.write_crash(options.output_dir, run, f"{told}\n\n{details}")
        log.debug("details are in %s", crash)
    except HarmonizeError as second:
        # A full disk must not hide what happened first.
        log.error("no crash file could be written: %s", second)
    code = told.exit_code if isinstance(told, InputOutputError | CannotCreate) else BadData.exit_code
    return Outcome(run=run, state="failed", sentence=str(told), exit_code=code)


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
