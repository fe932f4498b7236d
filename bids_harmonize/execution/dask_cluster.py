"""Tasks run by Dask workers: of a running scheduler, or of a cluster that is started for the purpose.

Dask is an optional extra (``pip install 'bids-harmonize[cluster]'``). Its workers must see the same paths.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bids_harmonize.errors import InputOutputError, UsageError
from bids_harmonize.execution.local import Executor, ResultT, WorkerKilled, run_captured, unwrap
from bids_harmonize.execution.slurm_jobs import (
    SECONDS_BETWEEN_CHECKS,
    WORKER_GB,
    ClusterSpec,
    SlurmJobs,
    WorkerMonitor,
    slurm_cluster,
)
from bids_harmonize.options import ClusterKind

log = logging.getLogger("bids_harmonize")
SECONDS_TO_CONNECT = 60
EXTRA = "install it with: pip install 'bids-harmonize[{}]'"


class DaskExecutor:
    """Workers of a Dask cluster; Dask itself gives the tasks of one that died to another."""

    def __init__(self, client: Any, size: int, monitor: WorkerMonitor | None = None) -> None:
        self.size = size
        self._client = client
        self._monitor = monitor

    def submit(self, function: Callable[..., ResultT], *arguments: Any) -> Any:
        """Hand out a task."""
        # A task is run for what it writes: its result is never taken from that of an equal one.
        return self._client.submit(run_captured, function, arguments, pure=False)

    def collect(self, future: Any, function: Callable[..., ResultT], *arguments: Any) -> ResultT:
        """Wait for a task."""
        from distributed import KilledWorker

        if self._monitor is not None:
            self._wait(future, self._monitor)
        try:
            return unwrap(future.result())
        except KilledWorker:
            raise WorkerKilled from None

    def _wait(self, future: Any, monitor: WorkerMonitor) -> None:
        from distributed import wait

        while not future.done():
            try:
                with self._client.as_current():
                    wait(future, timeout=SECONDS_BETWEEN_CHECKS)
            except TimeoutError:
                monitor.check()
        monitor.task_was_done()


@contextmanager
def connect_cluster(scheduler: str, spec: ClusterSpec) -> Iterator[Executor]:
    """Connect to the scheduler at an address, or start a cluster of a `ClusterKind` for as long as needed.

    Raises
    ------
    UsageError
        Dask, or what the kind of cluster needs, is not installed.
    InputOutputError
        The scheduler does not answer, or no cluster can be started.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(f"--scheduler needs Dask; {EXTRA.format('cluster')}") from error
    with _cluster(scheduler, spec) as cluster:
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
            monitor = SlurmJobs(cluster, spec) if scheduler == ClusterKind.SLURM else None
            yield DaskExecutor(client, max(threads, spec.workers), monitor)


@contextmanager
def _cluster(scheduler: str, spec: ClusterSpec) -> Iterator[Any]:
    if scheduler not in [*ClusterKind]:
        yield scheduler
        return
    kind = ClusterKind(scheduler)
    try:
        cluster = _start_cluster(kind, spec)
    except ImportError as error:
        extra = EXTRA.format("kubernetes" if kind is ClusterKind.KUBERNETES else "cluster")
        raise UsageError(f"--scheduler {scheduler} needs {error.name}; {extra}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise InputOutputError(f"--scheduler {scheduler}: no cluster can be started ({error})") from error
    with cluster:
        yield cluster


def _start_cluster(kind: ClusterKind, spec: ClusterSpec) -> Any:
    match kind:
        case ClusterKind.LOCAL:
            return _local(spec)
        case ClusterKind.SLURM:
            return slurm_cluster(spec)
        case ClusterKind.KUBERNETES:
            return _kubernetes(spec)


def _local(spec: ClusterSpec) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=spec.workers,
        threads_per_worker=1,
        memory_limit=spec.memory or 0,
        # No dashboard, and no ports but those that the workers need.
        dashboard_address=None,
    )


def _kubernetes(spec: ClusterSpec) -> Any:
    from dask_kubernetes.operator import KubeCluster

    memory = spec.memory or WORKER_GB * 10**9
    return KubeCluster(
        name="bids-harmonize",
        n_workers=spec.workers,
        resources={"requests": {"cpu": str(spec.threads), "memory": str(memory)}},
    )
