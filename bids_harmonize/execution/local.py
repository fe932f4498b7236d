"""Tasks that this process or worker processes run; results come in the order of the tasks.

Worker processes share nothing with each other. They are forked from a server process that has only imported
modules, because forking a process whose libraries have started threads may hang.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from types import FrameType
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from bids_harmonize.execution.signals import after_imports

log = logging.getLogger("bids_harmonize")

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

# Tasks are handed out beyond those that are running, so that no worker waits for the slowest one.
TASKS_PER_WORKER = 3
# A worker whose parent was killed has this long to remove half-written files.
SHUTDOWN_GRACE_SECONDS = 5.0


class WorkerKilled(Exception):
    """The process that ran a task was killed, twice."""


class Executor(Protocol):
    """Runs tasks, `size` of them at a time."""

    size: int

    def submit(self, function: Callable[..., ResultT], *arguments: Any) -> Future[Any]:
        """Hand out a task; `collect` gives its result."""

    def collect(self, future: Future[Any], function: Callable[..., ResultT], *arguments: Any) -> ResultT:
        """Wait for a task that was handed out.

        Raises
        ------
        WorkerKilled
            The process that ran it was killed.
        """


class InProcessExecutor:
    """No worker but this process, which runs a task when it is handed out."""

    size = 1

    def submit(self, function: Callable[..., ResultT], *arguments: Any) -> Future[Any]:
        """Run the task; what it raises is raised here."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def collect(self, future: Future[Any], function: Callable[..., ResultT], *arguments: Any) -> ResultT:
        """Return what `submit` has computed."""
        return future.result()


class ProcessPool:
    """Worker processes of this machine, and others in their place where one is killed.

    What they log is logged here, when their result is collected.
    """

    def __init__(self, size: int, preload: Sequence[str] = ()) -> None:
        self.size = size
        self._preload = preload
        self._executor = self._start_workers(size)

    def submit(self, function: Callable[..., ResultT], *arguments: Any) -> Future[Any]:
        """Hand out a task."""
        try:
            return self._executor.submit(run_captured, function, arguments)
        except BrokenProcessPool:
            self._executor = self._start_workers(self.size)
            return self._executor.submit(run_captured, function, arguments)

    def collect(self, future: Future[Any], function: Callable[..., ResultT], *arguments: Any) -> ResultT:
        """Wait for a task."""
        try:
            return unwrap(future.result())
        except (BrokenProcessPool, SystemExit):
            # All running tasks are lost, and the pool does not say which one's process was killed: each is
            # run once more in a process of its own.
            return self._run_alone(function, *arguments)

    def close(self) -> None:
        """Wait until all tasks are done."""
        self._executor.shutdown()

    def abandon(self) -> None:
        """Stop the running tasks, so that no half-written file stays, and start no more."""
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(SHUTDOWN_GRACE_SECONDS)

    def _start_workers(self, size: int) -> ProcessPoolExecutor:
        _start_forkserver(self._preload)
        context = multiprocessing.get_context("forkserver")
        return ProcessPoolExecutor(size, context, _set_up_worker, (log.level,))

    def _run_alone(self, function: Callable[..., ResultT], *arguments: Any) -> ResultT:
        executor = self._start_workers(1)
        try:
            return unwrap(executor.submit(run_captured, function, arguments).result())
        except (BrokenProcessPool, SystemExit):
            raise WorkerKilled from None
        finally:
            executor.shutdown()


@contextmanager
def open_executor(size: int, *, preload: Sequence[str] = ()) -> Iterator[Executor]:
    """Start worker processes; for one, or where none can be started, use this process.

    Parameters
    ----------
    size
        The number of workers.
    preload
        Names of modules that the server of the workers imports before it forks the first one. They have no
        effect if the server is running already.
    """
    if size < 2:
        yield InProcessExecutor()
        return
    try:
        pool = ProcessPool(size, preload)
    except OSError as error:
        # The server needs a folder for temporary files, and semaphores need /dev/shm.
        log.warning("scans are harmonized one after the other: no worker process can be started (%s)", error)
        yield InProcessExecutor()
        return
    try:
        yield pool
    except BaseException:
        pool.abandon()
        raise
    pool.close()


def warm_up_forkserver(preload: Sequence[str]) -> None:
    """Start the server that workers are forked from, so that importing modules there costs no time later."""
    # Where it cannot be started, `open_executor` logs why.
    with suppress(OSError):
        _start_forkserver(preload)


def _start_forkserver(preload: Sequence[str]) -> None:
    multiprocessing.get_context("forkserver").set_forkserver_preload([*preload])
    forkserver.ensure_running()


class OrderedMap(Generic[ItemT, ResultT]):
    """The results of a function, in the order of the items, whichever worker is done first.

    Nothing is handed out before the first result is asked for.

    Parameters
    ----------
    executor
        Runs the function.
    function, items
        What is run, and with which argument each time.
    on_worker_killed
        The result of an item whose worker was killed.
    is_last
        Whether a result is the last that is wanted; what is running by then still follows.
    memory_needed, memory_budget
        Memory of an item, and of all that run at the same time, in bytes. An item that needs more than the
        budget runs alone.
    """

    def __init__(
        self,
        executor: Executor,
        function: Callable[[ItemT], ResultT],
        items: Iterable[ItemT],
        *,
        on_worker_killed: Callable[[ItemT], ResultT],
        is_last: Callable[[ResultT], bool] = lambda result: False,
        memory_needed: Callable[[ItemT], int] = lambda item: 0,
        memory_budget: int | None = None,
    ) -> None:
        self._executor = executor
        self._function = function
        self._on_worker_killed = on_worker_killed
        self._is_last = is_last
        self._memory_needed = memory_needed
        self._memory_budget = memory_budget
        self._waiting = deque(items)
        self._submitted: deque[tuple[ItemT, int, Future[Any]]] = deque()

    def __iter__(self) -> Iterator[ResultT]:
        while self._waiting or self._submitted:
            self._submit_ready()
            item, _, future = self._submitted.popleft()
            if future.cancelled():
                continue
            result = self._collect(item, future)
            yield result
            if self._is_last(result):
                self._cancel_rest()

    def _has_room(self, memory: int) -> bool:
        executor = self._executor
        if len(self._submitted) >= (executor.size * TASKS_PER_WORKER if executor.size > 1 else 1):
            return False
        used = sum(bytes_ for _, bytes_, future in self._submitted if not future.done())
        return self._memory_budget is None or used == 0 or used + memory <= self._memory_budget

    def _submit_ready(self) -> None:
        """Hand out as many items as there is room for."""
        while self._waiting:
            item = self._waiting[0]
            memory = 0 if self._memory_budget is None else self._memory_needed(item)
            if not self._has_room(memory):
                return
            self._waiting.popleft()
            self._submitted.append((item, memory, self._executor.submit(self._function, item)))

    def _collect(self, item: ItemT, future: Future[Any]) -> ResultT:
        try:
            return self._executor.collect(future, self._function, item)
        except WorkerKilled:
            return self._on_worker_killed(item)

    def _cancel_rest(self) -> None:
        self._waiting.clear()
        for _, _, future in self._submitted:
            future.cancel()


# --- In a worker ----------------------------------------------------------------------------------


_ONE_TASK_AT_A_TIME = threading.Lock()


class LogCollector(logging.Handler):
    """Keeps log records in a form that can be sent to another process."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        record.exc_info = record.exc_text = record.stack_info = None
        self.records.append(record)


def _set_up_worker(level: int) -> None:
    # The terminal sends SIGINT to all processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, after_imports(_stop))
    log.setLevel(level)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _leave_with_parent() -> None:
    """End when the process that handed out the tasks ends: a worker has no other sign that it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SHUTDOWN_GRACE_SECONDS)
    os._exit(1)


def run_captured(
    function: Callable[..., ResultT], arguments: tuple[Any, ...]
) -> tuple[ResultT, list[logging.LogRecord]]:
    """Run a task; return its result and what was logged meanwhile."""
    # Threads would share the log, the number of threads, and matplotlib, which is meant for one.
    with _ONE_TASK_AT_A_TIME:
        collector, handlers, propagate = LogCollector(), log.handlers[:], log.propagate
        log.handlers[:], log.propagate = [collector], False
        try:
            return function(*arguments), collector.records
        finally:
            log.handlers[:], log.propagate = handlers, propagate


def unwrap(captured: tuple[ResultT, list[logging.LogRecord]]) -> ResultT:
    """Log here what was logged while a task ran, and return its result."""
    result, records = captured
    for record in records:
        log.handle(record)
    return result
