"""What handing out a task costs: with worker processes of this machine, and with Dask.

    python -m benchmarks.dispatch_overhead [--workers N] [--tasks N] [--rounds N] [--out DIR]

The table of milliseconds per task that does nothing is printed and written to DIR/overhead.md, all numbers to
DIR/overhead.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.formatting import markdown_table
from benchmarks.measured_process import RESULTS, describe_machine, machine_line
from bids_harmonize.execution.dask_cluster import connect_cluster
from bids_harmonize.execution.local import Executor, OrderedMap, open_executor
from bids_harmonize.execution.slurm_jobs import ClusterSpec


def do_nothing(number: int) -> int:
    """The task, which returns its argument."""
    return number


def milliseconds(executor: Executor, tasks: int) -> float:
    """Mean time per task.

    Raises
    ------
    RuntimeError
        Results were lost, or came in another order.
    """
    start = time.perf_counter()
    results = list(OrderedMap(executor, do_nothing, range(tasks), on_worker_killed=lambda number: -1))
    seconds = time.perf_counter() - start
    if results != list(range(tasks)):
        raise RuntimeError("results were lost, or came in another order")
    return 1000 * seconds / tasks


def measure(open_one: Callable[[], AbstractContextManager[Executor]], tasks: int, rounds: int) -> list[float]:
    """Milliseconds per task in every round; before them, the seconds until the first task was done."""
    start = time.perf_counter()
    with open_one() as executor:
        milliseconds(executor, 1)
        first = time.perf_counter() - start
        # Every worker imports what it needs before the clock runs.
        milliseconds(executor, 10 * executor.size)
        return [first, *(milliseconds(executor, tasks) for _ in range(rounds))]


def table(rows: dict[str, list[float]]) -> str:
    """Markdown: a line per kind of workers."""
    body = []
    for name, (first, *rounds) in rows.items():
        times = (statistics.median(rounds), min(rounds), max(rounds))
        body.append((name, f"{first:.1f}", *(f"{time:.2f}" for time in times)))
    head = ("workers", "until the first result, s", "per scan, ms (median)", "least", "most")
    return markdown_table(head, body)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dispatch_overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes, 2 or more (default: 2)")
    parser.add_argument("--tasks", "--pieces", type=int, default=500, help="tasks in a round (default: 500)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS,
        help="folder of the output (default: benchmarks/results)",
    )
    options = parser.parse_args(arguments)
    cluster = ClusterSpec(workers=options.workers, threads=1, memory=None)
    executors: dict[str, Callable[[], AbstractContextManager[Executor]]] = {
        "worker processes": lambda: open_executor(options.workers),
        "Dask, local": lambda: connect_cluster("local", cluster),
    }
    rows = {name: measure(open_one, options.tasks, options.rounds) for name, open_one in executors.items()}
    text = f"{table(rows)}\n\n- {options.workers} workers. {machine_line()}.\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "overhead.md").write_text(text, encoding="utf-8")
    content = {
        "Machine": describe_machine(),
        "Milliseconds": {name: statistics.median(rounds) for name, (_, *rounds) in rows.items()},
        "SecondsToTheFirst": {name: first for name, (first, *_) in rows.items()},
    }
    (options.out / "overhead.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
