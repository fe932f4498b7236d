"""Dask workers as jobs of Slurm, replaced when they end."""

from __future__ import annotations

import logging
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bids_harmonize.errors import InputOutputError

log = logging.getLogger("bids_harmonize")

# Gigabytes for a worker without --mem; a scan of 512 voxels in each direction takes two.
WORKER_GB = 4
SECONDS_BETWEEN_CHECKS = 5.0
# If more jobs than these, for each worker, end without having run any task, submitting others is of no use.
MAX_RESUBMISSIONS_PER_WORKER = 3


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """The number of workers, the threads and bytes of memory of each, and a folder for their output."""

    workers: int
    threads: int
    memory: int | None
    logs: Path | None = None


class WorkerMonitor(Protocol):
    """Keeps up the number of workers."""

    def check(self) -> None:
        """Replace workers that have ended; called again and again while a task is waited for.

        Raises
        ------
        InputOutputError
            No worker can be kept running.
        """

    def task_was_done(self) -> None:
        """Take note that a worker has run a task."""


def slurm_cluster(spec: ClusterSpec) -> Any:
    """Submit a job to Slurm for every worker, and return the cluster of them."""
    import dask
    from dask_jobqueue.slurm import SLURMCluster

    # The queue, account and time limit come from the user's jobqueue.yaml, as wherever Dask is used.
    def configured(key: str) -> Any:
        return dask.config.get(f"jobqueue.slurm.{key}", None)

    cluster = SLURMCluster(
        cores=1,
        processes=1,
        job_cpu=spec.threads,
        memory=f"{spec.memory // 10**6}MB" if spec.memory else f"{WORKER_GB}GB",
        job_script_prologue=[*(configured("job-script-prologue") or ()), *_prologue()],
        job_extra_directives=[
            # By default, logs go to the current folder, which the nodes may not see.
            *(() if configured("log-directory") else _log_directives(spec.logs)),
            *(configured("job-extra-directives") or ()),
        ],
        # No dashboard unless the user configures one, and not Dask's default port: on a login node, another
        # user may have taken it.
        scheduler_options={"dashboard": False, "dashboard_address": ":0"}
        | (configured("scheduler-options") or {}),
    )
    for _ in range(spec.workers):
        cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        _submit(cluster)
    except BaseException:
        cluster.close()
        raise
    return cluster


def _submit(cluster: Any) -> None:
    """Submit the jobs that are missing.

    scale() would submit them later, and not raise where that fails.
    """
    from distributed import Status

    try:
        cluster.sync(cluster._correct_state)
    finally:
        for job in cluster.workers.values():
            if job.job_id is None:
                # Dask cannot close a cluster with a job that was not submitted.
                job.status = Status.failed


def _prologue() -> list[str]:
    """Shell lines by which a job finds this package if it is run from a checkout and not installed."""
    folder = Path(__file__).parents[2]
    if folder.name in ("site-packages", "dist-packages"):
        return []
    return [f'export PYTHONPATH={shlex.quote(str(folder))}"${{PYTHONPATH:+:$PYTHONPATH}}"']


def _log_directives(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    # In a file name of Slurm, a percent sign begins a placeholder.
    escaped = str(folder).replace("%", "%%").replace('"', '\\"')
    return [f'--output="{escaped}/dask-worker-%j.log"']


class SlurmJobs:
    """Replaces jobs of Slurm, in which Dask's workers run, when they end: at their time limit, for example.

    Dask itself would wait for ever for workers that cannot start, and not replace those that have ended.
    """

    def __init__(self, cluster: Any, spec: ClusterSpec) -> None:
        self._cluster = cluster
        self._spec = spec
        self._ended = 0

    def check(self) -> None:
        """Submit jobs in place of those that have ended."""
        from distributed import Status

        workers = self._cluster.workers
        queued = queued_jobs([job.job_id for job in workers.values() if job.job_id])
        if queued is None:
            return
        connected = {str(worker["name"]) for worker in self._cluster.scheduler_info["workers"].values()}
        ended = [
            name for name, job in workers.items() if job.job_id not in queued and str(name) not in connected
        ]
        if not ended:
            return
        self._ended += len(ended)
        if self._ended > MAX_RESUBMISSIONS_PER_WORKER * self._spec.workers:
            where = f"; their output is in {self._spec.logs}" if self._spec.logs else ""
            raise InputOutputError(
                f"--scheduler slurm: {self._ended} jobs ended without running any task{where}"
            )
        log.warning("%d Slurm jobs ended before all scans were done; submitting as many again", len(ended))
        for name in ended:
            workers.pop(name).status = Status.closed
        try:
            _submit(self._cluster)
        except (OSError, RuntimeError) as error:
            # Slurm may be busy; a job that was not submitted counts as ended at the next check.
            log.warning("no Slurm job could be submitted (%s); trying again", error)

    def task_was_done(self) -> None:
        """Allow any number of jobs to end at their time limit, as they run tasks before that."""
        self._ended = 0


def queued_jobs(jobs: Sequence[str]) -> set[str] | None:
    """Those of the jobs that wait or run; None if Slurm does not answer."""
    if not jobs:
        return set()
    command = ["squeue", "--noheader", "--format=%A", f"--jobs={','.join(jobs)}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    # squeue fails with these words if all the jobs ended so long ago that Slurm has forgotten them.
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return None
    return set(answer.stdout.split())
