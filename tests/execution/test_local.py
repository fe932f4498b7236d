"""Results in order, whoever does the work, and whoever of them is killed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.execution import local
from bids_harmonize.execution.local import (
    Executor,
    InProcessExecutor,
    OrderedMap,
    ProcessPool,
    WorkerKilled,
    open_executor,
)
from tests.helpers.toy_datasets import ROOT

log = logging.getLogger("bids_harmonize")


def square(number: int) -> int:
    log.warning("%d is squared", number)
    return number * number


def slow_if_even(number: int) -> int:
    time.sleep(0.2 * (number % 2 == 0))
    return number


def end_unless_seen(number: int, folder: Path) -> int:
    """Be killed, the first time."""
    mark = folder / str(number)
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def end(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def write_and_wait(path: Path) -> None:
    try:
        path.write_text(str(os.getpid()))
        time.sleep(60)
    finally:
        path.with_suffix(".gone").touch()


def minus(number: int) -> int:
    return -number


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with open_executor(2) as processes:
        assert isinstance(processes, ProcessPool)
        yield processes


def ordered(executor: Executor, function: Any, count: int, **settings: Any) -> list[int]:
    return list(OrderedMap(executor, function, range(count), on_worker_killed=minus, **settings))


def test_one_is_this_process() -> None:
    with open_executor(1) as alone:
        assert isinstance(alone, InProcessExecutor)
        assert ordered(alone, lambda number: number + os.getpid(), 2) == [os.getpid(), os.getpid() + 1]


@pytest.mark.process
def test_results_and_what_is_logged_come_in_order(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = local.LogCollector()
    monkeypatch.setattr(log, "handlers", [kept])
    assert ordered(executor, slow_if_even, 7) == list(range(7))
    assert ordered(executor, square, 5) == [0, 1, 4, 9, 16]
    assert [record.getMessage() for record in kept.records] == [f"{n} is squared" for n in range(5)]


def test_one_alone_does_nothing_before_it_is_asked() -> None:
    done: list[int] = []
    results = OrderedMap(InProcessExecutor(), done.append, range(3), on_worker_killed=minus)
    next(iter(results))
    assert done == [0]


@pytest.mark.parametrize("size", [1, 2])
def test_after_the_last_that_is_wanted_nothing_is_begun(size: int, tmp_path: Path) -> None:
    begun: list[int] = []

    class Counted(InProcessExecutor):
        def submit(self, function: Any, *arguments: Any) -> Future[Any]:
            begun.append(arguments[0])
            return super().submit(function, *arguments)

    executor = Counted()
    executor.size = size
    results = ordered(executor, abs, 50, is_last=lambda result: result == 3)
    assert results == begun
    assert results[3] == 3
    assert len(results) <= 4 + local.TASKS_PER_WORKER * size


@pytest.mark.process
def test_a_killed_process_s_work_is_done_once_more(executor: Executor, tmp_path: Path) -> None:
    results = OrderedMap(executor, _Once(tmp_path), range(8), on_worker_killed=minus)
    assert list(results) == list(range(8))


class _Once:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, number: int) -> int:
        return end_unless_seen(number, self.folder)


@pytest.mark.process
def test_what_kills_its_process_again_is_lost_and_nothing_else(executor: Executor) -> None:
    assert ordered(executor, end, 8) == [0, 1, 2, -3, 4, 5, 6, 7]
    with pytest.raises(WorkerKilled):
        executor.collect(executor.submit(end, 3), end, 3)
    assert executor.collect(executor.submit(end, 4), end, 4) == 4


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(1, 60), st.integers(2, 4))
def test_no_more_is_begun_than_there_is_memory_for(needs: list[int], budget: int, size: int) -> None:
    """With an executor that finishes nothing before it is asked for."""
    holding: dict[int, int] = {}

    class Late(Future[int]):
        def done(self) -> bool:
            return self.item not in holding

    class Hoarding(InProcessExecutor):
        def submit(self, function: Any, *arguments: Any) -> Future[Any]:
            future = Late()
            future.item = arguments[0]
            holding[arguments[0]] = needs[arguments[0]]
            assert sum(holding.values()) <= budget or sum(map(bool, holding.values())) == 1
            return future

        def collect(self, future: Any, function: Any, *arguments: Any) -> Any:
            holding.pop(arguments[0])
            return arguments[0]

    executor = Hoarding()
    executor.size = size
    results = ordered(executor, abs, len(needs), memory_needed=needs.__getitem__, memory_budget=budget)
    assert results == list(range(len(needs)))


def test_where_no_process_can_be_started_this_one_does_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no /dev/shm")

    kept = local.LogCollector()
    monkeypatch.setattr(log, "handlers", [kept])
    monkeypatch.setattr(local, "ProcessPoolExecutor", fail)
    with open_executor(4) as executor:
        assert isinstance(executor, InProcessExecutor)
    assert "no /dev/shm" in kept.records[0].getMessage()


@pytest.mark.process
def test_an_error_of_the_caller_ends_what_is_being_done(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pytest.raises(KeyboardInterrupt), open_executor(2) as executor:
        executor.submit(write_and_wait, path)
        wait_for(path)
        raise KeyboardInterrupt
    assert path.with_suffix(".gone").exists()
    assert ended(int(path.read_text()))


@pytest.mark.process
def test_workers_leave_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    code = (
        "import sys\n"
        "from pathlib import Path; from tests.execution import test_local\n"
        "from bids_harmonize.execution.local import open_executor\n"
        "with open_executor(2) as pool: pool.submit(test_local.write_and_wait, Path(sys.argv[1])).result()\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], env=environ) as process:
        wait_for(path)
        process.kill()
    wait_for(path.with_suffix(".gone"))
    deadline = time.monotonic() + 60
    while not ended(int(path.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended(int(path.read_text()))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and (path.suffix or path.read_text())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def ended(pid: int) -> bool:
    """Whether a process is no more, or waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
