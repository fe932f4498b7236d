"""Work done by other machines: Dask workers of a running scheduler, or of Slurm, Kubernetes or this machine.

Dask is an optional extra (``pip install 'bids-harmonize[cluster]'``). Its workers must see the same paths.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bids_harmonize.errors import InputOutputError, UsageError
from bids_harmonize.workers import Crew, Lost, Result, retold, work

log = logging.getLogger("bids_harmonize")

KINDS = ("local", "slurm", "kubernetes")
# Gigabytes for a worker where --mem does not say: a scan of 512 voxels each way takes two.
WORKER_GB = 4
SECONDS_TO_CONNECT = 60
EXTRA = "install it with: pip install 'bids-harmonize[{}]'"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How many workers, with how many threads and bytes of memory each."""

    workers: int
    threads: int
    memory: int | None


class Dask:
    """Workers of a Dask cluster; Dask itself gives the work of one that died to another."""

    def __init__(self, client: Any, size: int) -> None:
        self.size = size
        self._client = client

    def submit(self, function: Callable[..., Result], *given: Any) -> Any:
        """Hand out a piece of work."""
        # It is done for what it writes: never taken from another's result.
        return self._client.submit(work, function, given, pure=False)

    def collect(self, future: Any, function: Callable[..., Result], *given: Any) -> Result:
        """Wait for a piece of work."""
        from distributed import KilledWorker

        try:
            return retold(future.result())
        except KilledWorker:
            raise Lost from None


@contextmanager
def cluster_of(scheduler: str, wanted: Wanted) -> Iterator[Crew]:
    """The workers of a scheduler's address, or of a cluster of one of `KINDS` for as long as it is needed.

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
    with _cluster(scheduler, wanted) as address:
        try:
            client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputOutputError(f"no Dask scheduler answers at {scheduler} ({error})") from error
        with client:
            threads = sum(client.nthreads().values())
            log.info("%s: %d threads of %d workers", scheduler, threads, len(client.nthreads()))
            # Workers may still be waiting for their machines.
            yield Dask(client, max(threads, wanted.workers))


@contextmanager
def _cluster(scheduler: str, wanted: Wanted) -> Iterator[Any]:
    if scheduler not in KINDS:
        yield scheduler
        return
    try:
        cluster = _MADE_BY[scheduler](wanted)
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
    from dask_jobqueue.slurm import SLURMCluster

    # Queue, account and the like come from the user's jobqueue.yaml, as with every program that uses Dask.
    cluster = SLURMCluster(
        cores=1,
        processes=1,
        job_cpu=wanted.threads,
        memory=f"{wanted.memory // 10**6}MB" if wanted.memory else f"{WORKER_GB}GB",
    )
    cluster.scale(jobs=wanted.workers)
    return cluster


def _kubernetes(wanted: Wanted) -> Any:
    from dask_kubernetes.operator import KubeCluster

    memory = wanted.memory or WORKER_GB * 10**9
    return KubeCluster(
        name="bids-harmonize",
        n_workers=wanted.workers,
        resources={"requests": {"cpu": str(wanted.threads), "memory": str(memory)}},
    )


_MADE_BY: dict[str, Callable[[Wanted], Any]] = {"local": _local, "slurm": _slurm, "kubernetes": _kubernetes}
