"""Work done in this process, or by worker processes; results come in the order of the work, whoever did it.

Worker processes share nothing with each other. They are forked from a server process that has imported this
package and computed nothing, as forking one whose libraries have begun threads may hang.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from types import FrameType
from typing import Any, NoReturn, Protocol, TypeVar

log = logging.getLogger("bids_harmonize")

Item = TypeVar("Item")
Result = TypeVar("Result")

# What the server imports before it forks.
PRELOADED = ["bids_harmonize.participant"]
# Work handed out beyond what is being done, so that nobody waits for the slowest.
AHEAD = 3
# A worker whose parent was killed has so long to remove what is half-written.
FAREWELL_SECONDS = 5.0


class Lost(Exception):
    """The process that did a piece of work was killed, twice."""


class Crew(Protocol):
    """Whoever does the work: `size` pieces at a time."""

    size: int

    def submit(self, function: Callable[..., Result], *given: Any) -> Future[Any]:
        """Hand out a piece of work; `collect` gives its result."""

    def collect(self, future: Future[Any], function: Callable[..., Result], *given: Any) -> Result:
        """Wait for a piece of work that was handed out.

        Raises
        ------
        Lost
            The process that did it was killed.
        """


class Alone:
    """No worker but this process, which does a piece of work when it is handed out."""

    size = 1

    def submit(self, function: Callable[..., Result], *given: Any) -> Future[Any]:
        """Do the work; what it raises is raised here."""
        future: Future[Any] = Future()
        future.set_result(function(*given))
        return future

    def collect(self, future: Future[Any], function: Callable[..., Result], *given: Any) -> Result:
        """What `submit` has done."""
        return future.result()


class Processes:
    """Worker processes of this machine, and others in their place where one is killed.

    What they log is logged here, when their result is collected.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._executor = self._begin(size)

    def submit(self, function: Callable[..., Result], *given: Any) -> Future[Any]:
        """Hand out a piece of work."""
        try:
            return self._executor.submit(work, function, given)
        except BrokenProcessPool:
            self._executor = self._begin(self.size)
            return self._executor.submit(work, function, given)

    def collect(self, future: Future[Any], function: Callable[..., Result], *given: Any) -> Result:
        """Wait for a piece of work."""
        try:
            return retold(future.result())
        except (BrokenProcessPool, SystemExit):
            # All that was being done is lost, and whose process was killed is not told: once more, by itself.
            return self._once_more(function, *given)

    def close(self) -> None:
        """Wait until all that was handed out is done."""
        self._executor.shutdown()

    def abandon(self) -> None:
        """Stop what is being done, so that nothing half-written stays, and do no more."""
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(FAREWELL_SECONDS)

    def _begin(self, size: int) -> ProcessPoolExecutor:
        _start_server()
        context = multiprocessing.get_context("forkserver")
        return ProcessPoolExecutor(size, context, _prepare, (log.level,))

    def _once_more(self, function: Callable[..., Result], *given: Any) -> Result:
        executor = self._begin(1)
        try:
            return retold(executor.submit(work, function, given).result())
        except (BrokenProcessPool, SystemExit):
            raise Lost from None
        finally:
            executor.shutdown()


@contextmanager
def crew_of(size: int) -> Iterator[Crew]:
    """So many worker processes; for one, or where there can be none, this process."""
    if size < 2:
        yield Alone()
        return
    try:
        processes = Processes(size)
    except OSError as error:
        # The server needs a folder for temporary files, and semaphores /dev/shm.
        log.warning("scans are done one after the other: no worker process can be started (%s)", error)
        yield Alone()
        return
    try:
        yield processes
    except BaseException:
        processes.abandon()
        raise
    processes.close()


def start_early() -> None:
    """Start the server that workers are forked from, so that its imports cost no time later."""
    # Where it cannot be started, `crew_of` says so.
    with suppress(OSError):
        _start_server()


def _start_server() -> None:
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


def in_order(
    crew: Crew,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    lost: Callable[[Item], Result],
    stop: Callable[[Result], bool] = lambda result: False,
    needs: Callable[[Item], int] = lambda item: 0,
    budget: int | None = None,
) -> Iterator[Result]:
    """Results of a function, in the order of the items.

    Parameters
    ----------
    lost
        The result of an item whose process was killed.
    stop
        Whether a result is the last that is wanted; what was begun by then still follows.
    needs, budget
        Memory of an item, and of all that are done at a time, in bytes. An item that needs more by itself
        is done by itself.
    """
    waiting = deque(items)
    begun: deque[tuple[Item, int, Future[Any]]] = deque()

    def room(need: int) -> bool:
        if len(begun) >= (crew.size * AHEAD if crew.size > 1 else 1):
            return False
        used = sum(bytes_ for _, bytes_, future in begun if not future.done())
        return used == 0 or used + need <= (budget or used + need)

    while waiting or begun:
        while waiting and room(need := needs(waiting[0]) if budget else 0):
            item = waiting.popleft()
            begun.append((item, need, crew.submit(function, item)))
        item, _, future = begun.popleft()
        if future.cancelled():
            continue
        try:
            result = crew.collect(future, function, item)
        except Lost:
            result = lost(item)
        yield result
        if stop(result):
            waiting.clear()
            for _, _, other in begun:
                other.cancel()


# --- In a worker ----------------------------------------------------------------------------------


_ONE_AT_A_TIME = threading.Lock()


class _Kept(logging.Handler):
    """Keeps what is logged, as it can be sent to another process."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        record.exc_info = record.exc_text = record.stack_info = None
        self.records.append(record)


def _prepare(level: int) -> None:
    # The terminal sends it to all; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    log.setLevel(level)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _leave_with_parent() -> None:
    """End with the process that handed out the work: nobody else would tell a worker that it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(FAREWELL_SECONDS)
    os._exit(1)


def work(function: Callable[..., Result], given: tuple[Any, ...]) -> tuple[Result, list[logging.LogRecord]]:
    """Do a piece of work; its result, and what was logged meanwhile."""
    # Threads would share the log, the number of threads, and matplotlib, which is meant for one.
    with _ONE_AT_A_TIME:
        kept, before, propagate = _Kept(), log.handlers[:], log.propagate
        log.handlers[:], log.propagate = [kept], False
        try:
            return function(*given), kept.records
        finally:
            log.handlers[:], log.propagate = before, propagate


def retold(done: tuple[Result, list[logging.LogRecord]]) -> Result:
    """The result of a piece of work, once what was logged meanwhile is logged here."""
    result, records = done
    for record in records:
        log.handle(record)
    return result
