"""What a worker does: harmonize one run, or write the page about one participant, whatever goes wrong."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import cast

import torch

from bids_harmonize.bids.dataset_files import require_output_exists
from bids_harmonize.bids.logs import write_crash
from bids_harmonize.bids.output_paths import report_path
from bids_harmonize.bids.run import Run
from bids_harmonize.commands.harmonize_scan import (
    OutOfDistributionError,
    WrittenScan,
    as_user_error,
    harmonize_scan,
)
from bids_harmonize.commands.own_curve import measure_own
from bids_harmonize.commands.scan_plan import RunSkipped, ScanPlan, plan_run
from bids_harmonize.errors import (
    OUT_OF_MEMORY,
    BadData,
    CannotCreate,
    HarmonizeError,
    InputOutputError,
    is_out_of_memory,
)
from bids_harmonize.execution.progress import TRACE
from bids_harmonize.files.atomic import remove_stale_temp_files
from bids_harmonize.model.card import ModelCard, ModelInfo, known_models
from bids_harmonize.model.harmonizer import Model
from bids_harmonize.options import Options
from bids_harmonize.report.components.pictures import matplotlib_cache_dir
from bids_harmonize.report.participant.build import (
    draw_scan_figures,
    write_participant_report,
)
from bids_harmonize.results.pool import Measured, PoolOfScan
from bids_harmonize.results.reading import has_results

log = logging.getLogger("bids_harmonize")

WORKER_KILLED = "worker process was killed (out of memory?)"


class RunStatus(StrEnum):
    """Outcome of a run, as the table at the end calls it."""

    HARMONIZED = "harmonized"
    PASSED_THROUGH = "passed through"
    UP_TO_DATE = "up to date"
    SKIPPED = "skipped"
    FAILED = "failed"
    # All of a participant's scans have a result, but the page about them was not written.
    UNREPORTED = "without report"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Outcome of a run or of a page.

    Attributes
    ----------
    message
        The message that is logged about it.
    seconds
        Duration of a run; 0 for a page.
    exit_code
        Exit code of its failure; 0 if it did not fail.
    crash
        The file with details of a failure.
    """

    status: RunStatus
    message: str
    seconds: float = 0.0
    exit_code: int = 0
    crash: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RunTask:
    """A run to be harmonized, and the pool that it is in, or None."""

    run: Run
    pool: PoolOfScan | None = None


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What every process that harmonizes needs to know.

    Attributes
    ----------
    threads
        Threads of each process.
    conflicting
        For the path of each run that must not be harmonized, a sentence that says why.
    """

    options: Options
    threads: int
    conflicting: Mapping[Path, str]

    def measure(self, run: Run) -> Measured | None:
        """Find a run's own curve; None if it can be in no pool. What is wrong with it `attempt` says."""
        torch.set_num_threads(self.threads)
        try:
            return measure_own(self._with_weights(self._plan(run, None)), run)
        except Exception:
            log.debug("%s: it is in no pool", run.relative, exc_info=True)
            return None

    def attempt(self, task: RunTask) -> RunResult:
        """Harmonize a run, if need be; what goes wrong is in the result."""
        run = task.run
        torch.set_num_threads(self.threads)
        remove_stale_temp_files(self.options.output_dir / f"sub-{run.subject}", deep=True)
        start = time.monotonic()
        try:
            result = self._harmonize(task)
        except RunSkipped as reason:
            result = RunResult(status=RunStatus.SKIPPED, message=str(reason))
        except Exception as error:
            result = failed_run(self.options, run, error)
        return replace(result, seconds=time.monotonic() - start)

    def report(self, label: str) -> RunResult | None:
        """Write the page about a participant, if there are results; None if nothing went wrong."""
        with matplotlib_cache_dir(self.options.output_dir):
            return write_report(self.options, label, self._cards)

    def killed(self, task: RunTask) -> RunResult:
        """The result of a run whose worker process was killed twice."""
        message = f"{task.run.path}: {WORKER_KILLED}; allow more memory or lower --n-cpus"
        return failed_run(self.options, task.run, BadData(message))

    def report_killed(self, label: str) -> RunResult:
        """The result of a page whose worker process was killed twice."""
        return _unreported(self.options, label, WORKER_KILLED, BadData.exit_code)

    @property
    def _models(self) -> list[ModelInfo]:
        return _known_models(self.options.models)

    @property
    def _cards(self) -> dict[str, ModelCard]:
        return {model.sha256: model.card for model in reversed(self._models)}

    def _plan(self, run: Run, pool: PoolOfScan | None) -> ScanPlan[ModelInfo]:
        return plan_run(self.options, run, self._models, self.conflicting, pool)

    def _with_weights(self, plan: ScanPlan[ModelInfo]) -> ScanPlan[Model]:
        model = load_model(plan.model.weights, self.options.device)
        return cast("ScanPlan[Model]", replace(plan, model=model))

    def _harmonize(self, task: RunTask) -> RunResult:
        known = self._plan(task.run, task.pool)
        if known.complete and not self.options.force:
            return RunResult(status=RunStatus.UP_TO_DATE, message=f"{known.name} is up to date")
        plan = self._with_weights(known)
        try:
            written = harmonize_scan(plan)
        except OutOfDistributionError:
            # An earlier call, in which such scans were not to fail, may have left a result.
            plan.clear()
            raise
        self._draw_figures(plan, written)
        status = RunStatus.HARMONIZED if written.result.harmonized else RunStatus.PASSED_THROUGH
        return RunResult(status=status, message=f"{plan.name} is {status}")

    def _draw_figures(self, plan: ScanPlan[Model], written: WrittenScan) -> None:
        """Draw what the page shows of a scan, while its images are in memory.

        The page draws what is missing, and its failure is the one that is reported.
        """
        try:
            with matplotlib_cache_dir(self.options.output_dir):
                draw_scan_figures(
                    self.options.output_dir,
                    written.result,
                    self._cards,
                    before=written.before,
                    after=written.after,
                )
        except Exception:
            log.debug("%s: its figures are left to the page", plan.name, exc_info=True)


@cache
def load_model(weights: Path, device: str) -> Model:
    """Load a model, once in every process."""
    return Model.load(weights, device)


@cache
def _known_models(asked_for: tuple[str, ...]) -> list[ModelInfo]:
    """`known_models`, read once in every process."""
    return known_models(asked_for)


def forget_models() -> None:
    """Have models read anew, as other weights may lie under the same names by now."""
    load_model.cache_clear()
    _known_models.cache_clear()


def write_report(options: Options, label: str, cards: Mapping[str, ModelCard]) -> RunResult | None:
    """Write the page about a participant, if there are results; None if nothing went wrong."""
    try:
        if has_results(options.output_dir, label):
            write_participant_report(options.output_dir, label, options.bids_dir, cards)
        return None
    except HarmonizeError as error:
        return _unreported(options, label, str(error), error.exit_code)
    except Exception as error:
        log.debug("the report failed", exc_info=True)
        if is_out_of_memory(error):
            return _unreported(options, label, OUT_OF_MEMORY, BadData.exit_code)
        if isinstance(error, OSError):
            return _unreported(
                options, label, f"reading or writing failed ({error})", InputOutputError.exit_code
            )
        unknown = f"{type(error).__name__}: {error}; please report it"
        return _unreported(options, label, unknown, BadData.exit_code)


def _unreported(options: Options, label: str, reason: str, code: int) -> RunResult:
    message = f"{report_path(options.output_dir, label)} was not written: {reason}"
    log.error(message)
    return RunResult(status=RunStatus.UNREPORTED, message=message, exit_code=code)


def failed_run(options: Options, run: Run, error: Exception) -> RunResult:
    """The result of a run that failed; the details are written to a crash file."""
    shown = as_user_error(run.path, error)
    details = "".join(traceback.format_exception(error))
    log.log(TRACE, "%s", details.rstrip())
    crash = None
    try:
        require_output_exists(options.output_dir)
        crash = write_crash(options.output_dir, run, f"{shown}\n\n{details}")
    except HarmonizeError as second:
        # A full disk must not hide what happened first.
        log.error("no crash file could be written: %s", second)
    code = shown.exit_code if isinstance(shown, InputOutputError | CannotCreate) else BadData.exit_code
    return RunResult(status=RunStatus.FAILED, message=str(shown), exit_code=code, crash=crash)
