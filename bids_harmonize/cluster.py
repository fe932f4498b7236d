"""Work done by other machines: Dask workers of a running scheduler, or of Slurm, Kubernetes or this machine.

Dask is an optional extra (``pip install 'bids-harmonize[cluster]'``). Its workers must see the same paths.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bids_harmonize.errors import InputOutputError, UsageError
from bids_harmonize.workers import Crew, Lost, Result, retold, work

log = logging.getLogger("bids_harmonize")

# Gigabytes for a worker where --mem does not say: a scan of 512 voxels each way takes two.
WORKER_GB = 4
SECONDS_TO_CONNECT = 60
SECONDS_BETWEEN_LOOKS = 5.0
# So many jobs for every worker may end, and no work be done in between, before it is no use to submit more.
MOST_ENDED = 3
EXTRA = "install it with: pip install 'bids-harmonize[{}]'"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How many workers, with how many threads and bytes of memory each, and a folder for what they print."""

    workers: int
    threads: int
    memory: int | None
    logs: Path | None = None


class Watch(Protocol):
    """Whoever sees to it that there are workers."""

    def look(self) -> None:
        """Replace what is gone; called again and again while work is waited for.

        Raises
        ------
        InputOutputError
            There will be no workers.
        """

    def work_was_done(self) -> None:
        """Take note that the workers are of use."""


class Dask:
    """Workers of a Dask cluster; Dask itself gives the work of one that died to another."""

    def __init__(self, client: Any, size: int, watch: Watch | None = None) -> None:
        self.size = size
        self._client = client
        self._watch = watch

    def submit(self, function: Callable[..., Result], *given: Any) -> Any:
        """Hand out a piece of work."""
        # It is done for what it writes: never taken from another's result.
        return self._client.submit(work, function, given, pure=False)

    def collect(self, future: Any, function: Callable[..., Result], *given: Any) -> Result:
        """Wait for a piece of work."""
        from distributed import KilledWorker

        if self._watch is not None:
            self._wait(future, self._watch)
        try:
            return retold(future.result())
        except KilledWorker:
            raise Lost from None

    def _wait(self, future: Any, watch: Watch) -> None:
        from distributed import wait

        while not future.done():
            try:
                with self._client.as_current():
                    wait(future, timeout=SECONDS_BETWEEN_LOOKS)
            except TimeoutError:
                watch.look()
        watch.work_was_done()


@contextmanager
def cluster_of(scheduler: str, wanted: Wanted) -> Iterator[Crew]:
    """The workers of a scheduler's address, or of one of `CLUSTERS` for as long as it is needed.

    Raises
    ------
    UsageError
        Dask, or what the kind of cluster needs, is not installed.
    InputOutputError
        The scheduler does not answer, or no cluster can be made.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(f"--scheduler needs Dask; {EXTRA.format('cluster')}") from error
    with _cluster(scheduler, wanted) as cluster:
        try:
            client = Client(cluster, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputOutputError(f"no Dask scheduler answers at {scheduler} ({error})") from error
        with client:
            threads = sum(client.nthreads().values())
            if threads:
                log.info("%s: %d threads of %d workers", scheduler, threads, len(client.nthreads()))
            else:
                log.info("%s: waiting for workers", scheduler)
            watch = SlurmJobs(cluster, wanted) if scheduler == "slurm" else None
            yield Dask(client, max(threads, wanted.workers), watch)


@contextmanager
def _cluster(scheduler: str, wanted: Wanted) -> Iterator[Any]:
    if scheduler not in CLUSTERS:
        yield scheduler
        return
    try:
        cluster = CLUSTERS[scheduler](wanted)
    except ImportError as error:
        extra = EXTRA.format("kubernetes" if scheduler == "kubernetes" else "cluster")
        raise UsageError(f"--scheduler {scheduler} needs {error.name}; {extra}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise InputOutputError(f"--scheduler {scheduler}: no cluster can be made ({error})") from error
    with cluster:
        yield cluster


def _local(wanted: Wanted) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=wanted.workers,
        threads_per_worker=1,
        memory_limit=wanted.memory or 0,
        # No page, no port but those that the workers need.
        dashboard_address=None,
    )


def _slurm(wanted: Wanted) -> Any:
    import dask
    from dask_jobqueue.slurm import SLURMCluster

    # Queue, account, time and the like come from the user's jobqueue.yaml, as wherever Dask is used.
    def configured(key: str) -> Any:
        return dask.config.get(f"jobqueue.slurm.{key}", None)

    cluster = SLURMCluster(
        cores=1,
        processes=1,
        job_cpu=wanted.threads,
        memory=f"{wanted.memory // 10**6}MB" if wanted.memory else f"{WORKER_GB}GB",
        job_script_prologue=[*(configured("job-script-prologue") or ()), *_prologue()],
        job_extra_directives=[
            # Otherwise in the current folder, which the nodes may not see.
            *(() if configured("log-directory") else _log_directives(wanted.logs)),
            *(configured("job-extra-directives") or ()),
        ],
        # No page unless the user wants it, nor Dask's usual port, which on a login node is another's.
        scheduler_options={"dashboard": False, "dashboard_address": ":0"}
        | (configured("scheduler-options") or {}),
    )
    for _ in range(wanted.workers):
        cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        _submit(cluster)
    except BaseException:
        cluster.close()
        raise
    return cluster


def _submit(cluster: Any) -> None:
    """Submit the jobs that are missing."""
    from distributed import Status

    try:
        # Not scale(), which submits later, and tells nobody that it failed.
        cluster.sync(cluster._correct_state)
    finally:
        for job in cluster.workers.values():
            if job.job_id is None:
                # Dask cannot close a cluster of which some part has not begun.
                job.status = Status.failed


def _prologue() -> list[str]:
    """What lets a job find this package where it is not installed, but run from a checkout."""
    folder = Path(__file__).parents[1]
    if folder.name in ("site-packages", "dist-packages"):
        return []
    return [f'export PYTHONPATH={shlex.quote(str(folder))}"${{PYTHONPATH:+:$PYTHONPATH}}"']


def _log_directives(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    # To Slurm, a percent sign begins a number of the job.
    escaped = str(folder).replace("%", "%%").replace('"', '\\"')
    return [f'--output="{escaped}/dask-worker-%j.log"']


class SlurmJobs:
    """The jobs that Dask's workers are; others are submitted for those that end, at their time limit for one.

    Dask itself would wait for ever for workers that cannot start, and not replace those that have ended.
    """

    def __init__(self, cluster: Any, wanted: Wanted) -> None:
        self._cluster = cluster
        self._wanted = wanted
        self._ended = 0

    def look(self) -> None:
        """Submit jobs in place of those that have ended."""
        from distributed import Status

        workers = self._cluster.workers
        queued = _queued([job.job_id for job in workers.values() if job.job_id])
        if queued is None:
            return
        there = {str(worker["name"]) for worker in self._cluster.scheduler_info["workers"].values()}
        ended = [name for name, job in workers.items() if job.job_id not in queued and str(name) not in there]
        if not ended:
            return
        self._ended += len(ended)
        if self._ended > MOST_ENDED * self._wanted.workers:
            where = f"; what they printed is in {self._wanted.logs}" if self._wanted.logs else ""
            raise InputOutputError(
                f"--scheduler slurm: {self._ended} jobs have ended, and none of them did any work{where}"
            )
        log.warning("%d jobs of Slurm have ended before the work is done; as many are submitted", len(ended))
        for name in ended:
            workers.pop(name).status = Status.closed
        try:
            _submit(self._cluster)
        except (OSError, RuntimeError) as error:
            # Slurm may be busy; what was not submitted counts as ended at the next look.
            log.warning("no job could be submitted: %s", error)

    def work_was_done(self) -> None:
        """The jobs are of use, and any number of them may end at their time limit."""
        self._ended = 0


def _queued(jobs: Sequence[str]) -> set[str] | None:
    """Those jobs that wait or run; None if Slurm does not say."""
    if not jobs:
        return set()
    command = ["squeue", "--noheader", "--format=%A", f"--jobs={','.join(jobs)}"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    # It says so if it has forgotten them all.
    if told.returncode and "Invalid job id" not in told.stderr:
        return None
    return set(told.stdout.split())


def _kubernetes(wanted: Wanted) -> Any:
    from dask_kubernetes.operator import KubeCluster

    memory = wanted.memory or WORKER_GB * 10**9
    return KubeCluster(
        name="bids-harmonize",
        n_workers=wanted.workers,
        resources={"requests": {"cpu": str(wanted.threads), "memory": str(memory)}},
    )


CLUSTERS: dict[str, Callable[[Wanted], Any]] = {"local": _local, "slurm": _slurm, "kubernetes": _kubernetes}
"""How each kind of cluster is made."""
