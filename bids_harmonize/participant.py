"""The participant level: every run is harmonized, skipped, passed over or named as failed."""

from __future__ import annotations

import logging
import os
import platform
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from importlib import metadata as packages
from math import ceil
from pathlib import Path
from typing import Any

import torch

from bids_harmonize.bids import derivatives
from bids_harmonize.bids.filters import labels
from bids_harmonize.bids.selection import Run, conflicts
from bids_harmonize.card import bundled_models, model_cards
from bids_harmonize.cluster import Wanted, cluster_of
from bids_harmonize.errors import (
    BadData,
    CannotCreate,
    HarmonizeError,
    InputOutputError,
    NothingSelected,
    lacks_memory,
    printable,
)
from bids_harmonize.image import open_image
from bids_harmonize.model import Model, torch_device
from bids_harmonize.options import Options
from bids_harmonize.plan import PassedOver, Plan, plan_run
from bids_harmonize.report.page import drawing_in
from bids_harmonize.report.participant import has_results, people, write_participant_report
from bids_harmonize.scan import Unlike, explained, memory_needed, process
from bids_harmonize.terminal import STATUS, TRACE, time_left
from bids_harmonize.version import version
from bids_harmonize.workers import Crew, Lost, crew_of, in_order

log = logging.getLogger("bids_harmonize")

# Each has its own copy of CUDA's libraries on it; more would not read and write faster than it computes.
MOST_ON_A_GPU = 4
REPORTED_PACKAGES = ("torch", "numpy", "nibabel", "pybids", "safetensors", "scipy")


class State(StrEnum):
    """What became of a run."""

    HARMONIZED = "harmonized"
    UNHARMONIZED = "left unharmonized"
    DONE_BEFORE = "done before"
    PASSED_OVER = "passed over"
    FAILED = "failed"
    # Of a person, whose scans are done, and not the page about them.
    UNREPORTED = "without report"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run, in how many seconds; `crash` is the file with details of a failure."""

    state: State
    sentence: str
    seconds: float = 0.0
    exit_code: int = 0
    crash: Path | None = None


def harmonize_runs(options: Options, runs: Sequence[Run]) -> int:
    """Harmonize the runs and return the exit code."""
    derivatives.refuse_foreign(options.output_dir)
    # In another call, other weights may lie there.
    _models.cache_clear()
    _models(options.models, options.device)
    _prepare(options)
    with drawing_in(options.output_dir):
        outcomes = list(_harmonize_all(options, runs))
    return _conclude(options, len(runs), outcomes)


def report_on_people(options: Options) -> int:
    """Write the pages of the people who have results, whose originals may be gone; return the exit code.

    Raises
    ------
    NothingSelected
        There are no results of those asked for.
    """
    derivatives.refuse_foreign(options.output_dir)
    asked, excluded = (labels(given, "sub") for given in (options.participants, options.excluded))
    there = people(options.output_dir)
    wanted = [label for label in there if label in (asked or there) and label not in excluded]
    if not wanted:
        raise NothingSelected(
            f"{options.output_dir} holds no results of the participants asked for; harmonize them first, "
            "without --reports-only"
        )
    cards = model_cards(options.models)
    if options.dry_run:
        print(*(derivatives.report_path(options.output_dir, label) for label in wanted), sep="\n")
        return 0
    derivatives.prepare_output(options.output_dir, options.bids_dir, work_dir=options.work_dir)
    for label in wanted:
        derivatives.remove_abandoned(options.output_dir / f"sub-{label}", deep=True)
    with drawing_in(options.output_dir):
        failures = [failure for label in wanted if (failure := _report(options, label, cards))]
    if options.verbosity >= 0:
        print(f"{len(wanted) - len(failures)} of {len(wanted)} reports are in {options.output_dir}")
    return max((failure.exit_code for failure in failures), default=0)


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


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every process that harmonizes needs to know."""

    options: Options
    threads: int
    conflicting: Mapping[Path, str]

    def attempt(self, run: Run) -> Outcome:
        """Harmonize a run, if need be; what goes wrong is in the outcome."""
        torch.set_num_threads(self.threads)
        derivatives.remove_abandoned(self.options.output_dir / f"sub-{run.subject}", deep=True)
        start = time.monotonic()
        outcome = _attempt(
            self.options, run, _models(self.options.models, self.options.device), self.conflicting
        )
        return replace(outcome, seconds=time.monotonic() - start)

    def report(self, label: str) -> Outcome | None:
        """Write the page about a person, if there are results; None if nothing went wrong."""
        models = _models(self.options.models, self.options.device)
        cards = {model.sha256: model.card for model in reversed(models)}
        with drawing_in(self.options.output_dir):
            return _report(self.options, label, cards)

    def lost(self, run: Run) -> Outcome:
        """What became of a run whose process was killed, twice."""
        sentence = f"{run.path}: its process was killed, for want of memory? Give more, or fewer --n-cpus"
        return _failed(self.options, run, BadData(sentence))

    def unreported(self, label: str) -> Outcome:
        """What became of a page whose process was killed, twice."""
        return _unreported(self.options, label, "its process was killed", BadData.exit_code)


@cache
def _models(names: tuple[str, ...], device: str) -> tuple[Model, ...]:
    return tuple(Model.load(model, device) for model in (*names, *bundled_models()))


def _harmonize_all(options: Options, runs: Sequence[Run]) -> Iterator[Outcome]:
    workers, threads = _shared_out(options, len(runs))
    job = Job(options=options, threads=threads, conflicting=conflicts(runs))
    try:
        with _crew(options, workers, threads) as crew:
            pages = _Pages(crew, job, runs)
            outcomes = in_order(
                crew,
                job.attempt,
                runs,
                lost=job.lost,
                stop=lambda outcome: options.stop_on_first_crash and outcome.state is State.FAILED,
                needs=_needs,
                # A cluster's workers have their own.
                budget=None if options.scheduler else options.mem_bytes,
            )
            for run, outcome in zip(runs, _told(outcomes, runs, workers), strict=False):
                derivatives.check_there(options.output_dir)
                yield outcome
                pages.ended(run)
            unwritten = list(pages.unwritten())
            derivatives.check_there(options.output_dir)
            yield from unwritten
    finally:
        log.info("", extra=STATUS)


def _told(outcomes: Iterator[Outcome], runs: Sequence[Run], workers: int) -> Iterator[Outcome]:
    """Say which run is waited for and how long the rest will take, and what became of it."""
    seconds: list[float] = []
    for number, run in enumerate(runs, start=1):
        place = f"{number} of {len(runs)}"
        rest = time_left(seconds, ceil((len(runs) - number + 1) / workers))
        log.info("%s%s: %s", place, rest, printable(str(run.relative)), extra=STATUS)
        if (outcome := next(outcomes, None)) is None:
            return
        level = logging.ERROR if outcome.state is State.FAILED else logging.INFO
        log.log(level, "%s, %.1f s: %s", place, outcome.seconds, outcome.sentence)
        # The others take next to no time, and would make the estimate too short.
        if outcome.state in (State.HARMONIZED, State.UNHARMONIZED):
            seconds.append(outcome.seconds)
        yield outcome


class _Pages:
    """The pages about people, each written when all the person's runs have ended."""

    def __init__(self, crew: Crew, job: Job, runs: Sequence[Run]) -> None:
        self._crew, self._job = crew, job
        self._left = Counter(run.subject for run in runs)
        self._begun: dict[str, Future[Outcome | None] | None] = {}

    def ended(self, run: Run) -> None:
        """Take note of a run."""
        self._left[run.subject] -= 1
        self._begun[run.subject] = None if self._left[run.subject] else self._write(run.subject)

    def unwritten(self) -> Iterator[Outcome]:
        """Wait for all pages; what became of those that were not written."""
        for label, page in self._begun.items():
            # Of some people runs are left, as the first failure was to be the last run.
            if (outcome := self._collect(label, page or self._write(label))) is not None:
                yield outcome

    def _write(self, label: str) -> Future[Outcome | None]:
        return self._crew.submit(self._job.report, label)

    def _collect(self, label: str, page: Future[Outcome | None]) -> Outcome | None:
        try:
            return self._crew.collect(page, self._job.report, label)
        except Lost:
            return self._job.unreported(label)


def _crew(options: Options, workers: int, threads: int) -> AbstractContextManager[Crew]:
    if options.scheduler is None:
        return crew_of(workers)
    logs = options.output_dir / "logs"
    wanted = Wanted(workers=workers, threads=threads, memory=options.mem_bytes, logs=logs)
    return cluster_of(options.scheduler, wanted)


def _shared_out(options: Options, runs: int) -> tuple[int, int]:
    """Worker processes, and threads for each."""
    threads = options.omp_nthreads or max(1, options.n_cpus // max(runs, 1))
    workers = max(1, min(options.n_cpus // threads, runs))
    return min(workers, MOST_ON_A_GPU) if torch_device(options.device).type == "cuda" else workers, threads


def _needs(run: Run) -> int:
    try:
        return memory_needed(open_image(run.path))
    except HarmonizeError:
        # It will be told when its turn comes.
        return 0


def _report(options: Options, label: str, cards: Mapping[str, Mapping[str, Any]]) -> Outcome | None:
    try:
        if has_results(options.output_dir, label):
            write_participant_report(options.output_dir, label, options.bids_dir, cards)
        return None
    except HarmonizeError as error:
        return _unreported(options, label, str(error), error.exit_code)
    except Exception as error:
        log.debug("the report failed", exc_info=True)
        unknown = f"{type(error).__name__}: {error}; please report it"
        said = "there is not enough memory; give the process more" if lacks_memory(error) else unknown
        return _unreported(options, label, said, BadData.exit_code)


def _unreported(options: Options, label: str, said: str, code: int) -> Outcome:
    sentence = f"{derivatives.report_path(options.output_dir, label)} was not written: {said}"
    log.error(sentence)
    return Outcome(state=State.UNREPORTED, sentence=sentence, exit_code=code)


def _attempt(options: Options, run: Run, models: Sequence[Model], conflicting: Mapping[Path, str]) -> Outcome:
    try:
        plan = plan_run(options, run, models, conflicting)
        if plan.complete and not options.force:
            return Outcome(state=State.DONE_BEFORE, sentence=f"{plan.name} is done already")
        state = _process(plan)
        return Outcome(state=state, sentence=f"{plan.name} is {state}")
    except PassedOver as reason:
        return Outcome(state=State.PASSED_OVER, sentence=str(reason))
    except Exception as error:
        return _failed(options, run, error)


def _process(plan: Plan[Model]) -> State:
    try:
        return State.HARMONIZED if process(plan) else State.UNHARMONIZED
    except Unlike:
        # What was made of it when such scans were not to fail.
        plan.clear()
        raise


def _failed(options: Options, run: Run, error: Exception) -> Outcome:
    told = explained(run.path, error)
    details = "".join(traceback.format_exception(error))
    log.log(TRACE, "%s", details.rstrip())
    crash = None
    try:
        derivatives.check_there(options.output_dir)
        crash = derivatives.write_crash(options.output_dir, run, f"{told}\n\n{details}")
    except HarmonizeError as second:
        # A full disk must not hide what happened first.
        log.error("no crash file could be written: %s", second)
    code = told.exit_code if isinstance(told, InputOutputError | CannotCreate) else BadData.exit_code
    return Outcome(state=State.FAILED, sentence=str(told), exit_code=code, crash=crash)


def _conclude(options: Options, count: int, outcomes: Sequence[Outcome]) -> int:
    """Print what became of ``count`` runs and return the exit code."""
    if options.verbosity >= 0:
        print(*_failures(outcomes), *_table(count, outcomes), sep="\n")
        print(f"results are in {options.output_dir}")
    return max((outcome.exit_code for outcome in outcomes), default=0)


def _failures(outcomes: Sequence[Outcome]) -> Iterator[str]:
    failed = [outcome for outcome in outcomes if outcome.exit_code]
    if failed:
        yield "failed:"
    for outcome in failed:
        yield f"    {outcome.sentence}"
        if outcome.crash is not None:
            yield f"        details are in {outcome.crash}"


def _table(count: int, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line for every state: how many runs, and how many seconds they took."""
    runs = [outcome for outcome in outcomes if outcome.state is not State.UNREPORTED]
    for state in State:
        seconds = [outcome.seconds for outcome in outcomes if outcome.state is state]
        if seconds or state is not State.UNREPORTED:
            yield f"{len(seconds):6d} {state:<17} {sum(seconds):9.1f} s"
    yield f"{count - len(runs):6d} not started"
