"""The participant level: every run is harmonized, passed through, up to date, skipped or failed."""

from __future__ import annotations

import logging
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import metadata as packages
from math import ceil
from pathlib import Path

from bids_harmonize.bids.dataset_files import (
    container,
    require_output_exists,
    require_own_dataset,
    write_dataset_files,
)
from bids_harmonize.bids.filters import labels
from bids_harmonize.bids.logs import write_run_log
from bids_harmonize.bids.output_paths import prepare_output, report_path
from bids_harmonize.bids.run import Run, conflicts
from bids_harmonize.commands.harmonize_scan import memory_needed
from bids_harmonize.commands.pools import assign, check_pooling, form_and_write, given_pools
from bids_harmonize.commands.run_context import (
    RunContext,
    RunResult,
    RunStatus,
    RunTask,
    forget_models,
    load_model,
    write_report,
)
from bids_harmonize.errors import HarmonizeError, NothingSelected, escape_unprintable
from bids_harmonize.execution.dask_cluster import connect_cluster
from bids_harmonize.execution.local import Executor, OrderedMap, WorkerKilled, open_executor
from bids_harmonize.execution.progress import STATUS, time_left
from bids_harmonize.execution.slurm_jobs import ClusterSpec
from bids_harmonize.files.atomic import remove_stale_temp_files
from bids_harmonize.imaging.nifti import open_image
from bids_harmonize.model.card import known_models, model_cards
from bids_harmonize.model.loading import torch_device
from bids_harmonize.options import Options
from bids_harmonize.report.components.pictures import matplotlib_cache_dir
from bids_harmonize.results.pool import Measured, Pool, PoolOfScan, scans_alone
from bids_harmonize.results.reading import participants_with_results
from bids_harmonize.version import version

log = logging.getLogger("bids_harmonize")

# Each worker has its own copy of CUDA's libraries on the GPU, and more workers would read and write no faster
# than it computes.
MAX_WORKERS_PER_GPU = 4
REPORTED_PACKAGES = ("torch", "numpy", "nibabel", "pybids", "safetensors", "scipy")


def harmonize_runs(options: Options, runs: Sequence[Run], skipped: int = 0) -> int:
    """Harmonize the runs, write the pages about their participants, and return the exit code.

    Parameters
    ----------
    skipped
        How many participants and images were skipped before, which the table at the end counts too.
    """
    require_own_dataset(options.output_dir)
    workers, threads = workers_and_threads(options, len(runs))
    _check_models(options, workers)
    known = known_models(options.models)
    given = [] if options.pool is None else given_pools(options.pool, known)
    if options.pool_by is not None:
        check_pooling(options.pool_by, runs, options.bids_dir, options.output_dir)
    _write_dataset_files(options)
    with matplotlib_cache_dir(options.output_dir):
        results = list(_harmonize_all(options, runs, given, workers, threads))
    if options.verbosity >= 0:
        print(*_failures(results), *_summary_lines(len(runs), results, skipped), sep="\n")
        print(f"results are in {options.output_dir}")
    return max((result.exit_code for result in results), default=0)


def write_reports_only(options: Options) -> int:
    """Write the pages of participants who have results, whose originals may be gone; return the exit code.

    Raises
    ------
    NothingSelected
        There are no results of the participants asked for.
    """
    require_own_dataset(options.output_dir)
    requested, excluded = (labels(names, "sub") for names in (options.participants, options.excluded))
    existing = participants_with_results(options.output_dir)
    selected = [label for label in existing if label in (requested or existing) and label not in excluded]
    if not selected:
        raise NothingSelected(
            f"{options.output_dir} holds no results of the participants asked for; harmonize them first, "
            "without --reports-only"
        )
    cards = model_cards(options.models)
    if options.dry_run:
        print(*(report_path(options.output_dir, label) for label in selected), sep="\n")
        return 0
    prepare_output(options.output_dir, options.bids_dir, work_dir=options.work_dir)
    for label in selected:
        remove_stale_temp_files(options.output_dir / f"sub-{label}", deep=True)
    with matplotlib_cache_dir(options.output_dir):
        failures = [failure for label in selected if (failure := write_report(options, label, cards))]
    if options.verbosity >= 0:
        print(f"{len(selected) - len(failures)} of {len(selected)} reports are in {options.output_dir}")
    return max((failure.exit_code for failure in failures), default=0)


def _check_models(options: Options, workers: int) -> None:
    """Fail before anything is written if a model cannot be used."""
    # An earlier call of this process may have found other weights under the same names.
    forget_models()
    torch_device(options.device)
    # Workers load models onto the device for themselves: here they would only take memory of it. Bundled
    # models are loaded when they are needed.
    alone = workers == 1 and options.scheduler is None
    for model in options.models:
        load_model(model, options.device if alone else "cpu")


def _write_dataset_files(options: Options) -> None:
    prepare_output(options.output_dir, options.bids_dir, work_dir=options.work_dir)
    own_container = container(os.environ, version=version())
    write_dataset_files(options.output_dir, options.bids_dir, version=version(), container=own_container)
    versions = {name: packages.version(name) for name in REPORTED_PACKAGES}
    versions |= {
        "bids-harmonize": version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    write_run_log(options.output_dir, options.command, os.environ, versions)


def _harmonize_all(
    options: Options, runs: Sequence[Run], given: Sequence[Pool], workers: int, threads: int
) -> Iterator[RunResult]:
    """Yield what became of every run, and then of the pages that were not written."""
    context = RunContext(options=options, threads=threads, conflicting=conflicts(runs))
    try:
        with _open_executor(options, workers, threads) as executor:
            pools = _form_pools(executor, context, runs) if options.pool_by is not None else given
            # Without pools nobody need read the sidecars yet.
            asked = pools or options.pool is not None
            assigned = assign(runs, pools, known_models(options.models), options.pool) if asked else {}
            if options.pool is not None:
                problems = {**_without_pool(options.pool, runs, assigned), **context.conflicting}
                context = replace(context, conflicting=problems)
            pages = _Pages(executor, context, runs)
            results = OrderedMap(
                executor,
                context.attempt,
                [RunTask(run=run, pool=assigned.get(run.path)) for run in runs],
                on_worker_killed=context.killed,
                is_last=lambda result: options.stop_on_first_crash and result.status is RunStatus.FAILED,
                memory_needed=lambda task: _memory_of_run(task.run),
                # Each worker of a cluster has memory of its own.
                memory_budget=None if options.scheduler else options.mem_bytes,
            )
            for run, result in zip(runs, _log_progress(iter(results), runs, workers), strict=False):
                require_output_exists(options.output_dir)
                yield result
                pages.run_ended(run)
            unwritten = list(pages.unwritten())
            require_output_exists(options.output_dir)
            yield from unwritten
    finally:
        log.info("", extra=STATUS)


def _form_pools(executor: Executor, context: RunContext, runs: Sequence[Run]) -> list[Pool]:
    """Measure all runs, and form and write the pools of those that belong together."""
    options, measured = context.options, list[Measured | None]()
    own_curves = OrderedMap(
        executor,
        context.measure,
        runs,
        # It will be killed again when it is harmonized, and that is told.
        on_worker_killed=lambda run: None,
        is_last=lambda one: False,
        memory_needed=_memory_of_run,
        memory_budget=None if options.scheduler else options.mem_bytes,
    )
    for number, one in enumerate(own_curves, start=1):
        log.info("measuring %d of %d for the pools", number, len(runs), extra=STATUS)
        measured.append(one)
    require_output_exists(options.output_dir)
    seen = [run.relative for run in runs]
    return form_and_write(str(options.pool_by), measured, seen, options.bids_dir, options.output_dir)


def _without_pool(
    path: Path, runs: Sequence[Run], assigned: Mapping[Path, PoolOfScan | None]
) -> dict[Path, str]:
    """For the path of each run that should be in one of the pools and is not, a sentence that says so."""
    alone = scans_alone(path) if path.is_dir() else frozenset()
    what = "form the pools again, or name the file of its pool" if path.is_dir() else "name that of its own"
    return {
        run.path: f"{run.path} belongs to no pool in {path}; {what}"
        for run in runs
        if assigned.get(run.path, run) is None and str(run.relative) not in alone
    }


def _log_progress(results: Iterator[RunResult], runs: Sequence[Run], workers: int) -> Iterator[RunResult]:
    """Log which run is waited for, how long the rest will take, and its outcome."""
    seconds: list[float] = []
    for number, run in enumerate(runs, start=1):
        place = f"{number} of {len(runs)}"
        rest = time_left(seconds, ceil((len(runs) - number + 1) / workers))
        log.info("%s%s: %s", place, rest, escape_unprintable(str(run.relative)), extra=STATUS)
        if (result := next(results, None)) is None:
            return
        level = logging.ERROR if result.status is RunStatus.FAILED else logging.INFO
        log.log(level, "%s, %.1f s: %s", place, result.seconds, result.message)
        # Other runs take next to no time, and would make the estimate too short.
        if result.status in (RunStatus.HARMONIZED, RunStatus.PASSED_THROUGH):
            seconds.append(result.seconds)
        yield result


class _Pages:
    """The pages about participants, each written when all the participant's runs have ended."""

    def __init__(self, executor: Executor, context: RunContext, runs: Sequence[Run]) -> None:
        self._executor, self._context = executor, context
        self._runs_left = Counter(run.subject for run in runs)
        self._begun: dict[str, Future[RunResult | None] | None] = {}

    def run_ended(self, run: Run) -> None:
        """Take note of a run, and hand out the page if it was the participant's last."""
        label = run.subject
        self._runs_left[label] -= 1
        self._begun[label] = None if self._runs_left[label] else self._submit(label)

    def unwritten(self) -> Iterator[RunResult]:
        """Wait for all pages; what became of those that were not written."""
        for label, page in self._begun.items():
            # Some participants have runs left if the first failure ended the work.
            if (result := self._collect(label, page or self._submit(label))) is not None:
                yield result

    def _submit(self, label: str) -> Future[RunResult | None]:
        return self._executor.submit(self._context.report, label)

    def _collect(self, label: str, page: Future[RunResult | None]) -> RunResult | None:
        try:
            return self._executor.collect(page, self._context.report, label)
        except WorkerKilled:
            return self._context.report_killed(label)


def _open_executor(options: Options, workers: int, threads: int) -> AbstractContextManager[Executor]:
    if options.scheduler is None:
        return open_executor(workers, preload=[__name__])
    logs = options.output_dir / "logs"
    spec = ClusterSpec(workers=workers, threads=threads, memory=options.mem_bytes, logs=logs)
    return connect_cluster(options.scheduler, spec)


def workers_and_threads(options: Options, runs: int) -> tuple[int, int]:
    """The number of worker processes for `runs` runs, and the threads of each."""
    threads = options.omp_nthreads or max(1, options.n_cpus // max(runs, 1))
    workers = max(1, min(options.n_cpus // threads, runs))
    if torch_device(options.device).type == "cuda":
        workers = min(workers, MAX_WORKERS_PER_GPU)
    return workers, threads


def _memory_of_run(run: Run) -> int:
    try:
        return memory_needed(open_image(run.path))
    except HarmonizeError:
        # What is wrong with the run is reported when its turn comes.
        return 0


def _failures(results: Sequence[RunResult]) -> Iterator[str]:
    failed = [result for result in results if result.exit_code]
    if failed:
        yield "failed:"
    for result in failed:
        yield f"    {result.message}"
        if result.crash is not None:
            yield f"        details are in {result.crash}"


def _summary_lines(count: int, results: Sequence[RunResult], skipped: int) -> Iterator[str]:
    """A line for every status: how many of the runs, and how many seconds they took."""
    ended = sum(result.status is not RunStatus.UNREPORTED for result in results)
    for status in RunStatus:
        seconds = [result.seconds for result in results if result.status is status]
        number = len(seconds) + (skipped if status is RunStatus.SKIPPED else 0)
        if number or status is not RunStatus.UNREPORTED:
            yield f"{number:6d} {status:<17} {sum(seconds):9.1f} s"
    yield f"{count - ended:6d} not started"
