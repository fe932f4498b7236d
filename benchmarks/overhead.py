"""What handing out a piece of work costs: this machine's worker processes, and Dask's.

    python -m benchmarks.overhead [--workers N] [--pieces N] [--rounds N] [--out DIR]

The table of milliseconds per piece of work that does nothing is printed, and written to DIR/overhead.md, all
numbers to DIR/overhead.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.apart import RESULTS, describe_machine, machine_line
from bids_harmonize.cluster import Wanted, cluster_of
from bids_harmonize.workers import Crew, crew_of, in_order


def nothing(number: int) -> int:
    return number


def milliseconds(crew: Crew, pieces: int) -> float:
    """Mean time per piece of work."""
    start = time.perf_counter()
    results = list(in_order(crew, nothing, range(pieces), lost=lambda number: -1))
    seconds = time.perf_counter() - start
    if results != list(range(pieces)):
        raise RuntimeError("pieces of work were lost, or came in another order")
    return 1000 * seconds / pieces


def measure(begin: Callable[[], AbstractContextManager[Crew]], pieces: int, rounds: int) -> list[float]:
    """Milliseconds per piece in every round, and before them the seconds until the first piece was done."""
    start = time.perf_counter()
    with begin() as crew:
        milliseconds(crew, 1)
        first = time.perf_counter() - start
        # Every worker imports what it needs before the clock runs.
        milliseconds(crew, 10 * crew.size)
        return [first, *(milliseconds(crew, pieces) for _ in range(rounds))]


def table(rows: dict[str, list[float]]) -> str:
    lines = [
        "| workers | until the first result, s | per scan, ms (median) | least | most |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, (first, *rounds) in rows.items():
        numbers = (statistics.median(rounds), min(rounds), max(rounds))
        lines.append(f"| {name} | {first:.1f} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes, 2 or more (default: 2)")
    parser.add_argument("--pieces", type=int, default=500, help="pieces of work in a round (default: 500)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS,
        help="folder of the output (default: benchmarks/results)",
    )
    given = parser.parse_args(argv)
    wanted = Wanted(workers=given.workers, threads=1, memory=None)
    ways: dict[str, Callable[[], AbstractContextManager[Crew]]] = {
        "worker processes": lambda: crew_of(given.workers),
        "Dask, local": lambda: cluster_of("local", wanted),
    }
    rows = {name: measure(begin, given.pieces, given.rounds) for name, begin in ways.items()}
    text = f"{table(rows)}\n\n- {given.workers} workers. {machine_line()}.\n"
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "overhead.md").write_text(text, encoding="utf-8")
    content = {
        "Machine": describe_machine(),
        "Milliseconds": {name: statistics.median(rounds) for name, (_, *rounds) in rows.items()},
        "SecondsToTheFirst": {name: first for name, (first, *_) in rows.items()},
    }
    (given.out / "overhead.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
