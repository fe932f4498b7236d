"""A hundred thousand scans, calculated: time, disk, network and cost, from what was measured.

    python -m benchmarks.projection [--scans N] [--cores N ...] [--results DIR]

Reads from DIR what `benchmarks.throughput`, `benchmarks.large_datasets` and `benchmarks.dispatch_overhead`
have written, prints a table and writes it to DIR/projection.md. Nothing is run. What is not measured is
assumed, and the assumptions are listed: cores do not slow each other down, a task does a hundred scans, the
network reaches its nominal speed, and prices.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.formatting import duration, markdown_table, number
from benchmarks.measured_process import RESULTS
from benchmarks.one_scan import OURS

HOUR = 3600.0
#: Megabytes of files per second that a gigabit network transfers.
MB_PER_GIGABIT = 110.0


@dataclass(frozen=True, kw_only=True)
class ScanCosts:
    """What one scan takes, and what is taken once.

    Attributes
    ----------
    processor_seconds
        Per scan, with one CPU.
    start_seconds
        From the start of a task to its first scan; the selection of its participants from a large dataset is
        included.
    handing_out_seconds
        Per scan, with Dask.
    group_seconds
        Time of the group level, per scan.
    read, written, reported
        Megabytes per scan: input, output image, page and figures.
    files
        Number of files written per scan.
    """

    processor_seconds: float
    start_seconds: float
    handing_out_seconds: float
    group_seconds: float
    read: float
    written: float
    reported: float
    files: float


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What is not measured: scans per task; dollars per core and hour, and per GB and month."""

    scans_per_task: int = 100
    core_hour: float = 0.04
    gigabyte_month: float = 0.02


def main(arguments: Sequence[str] | None = None) -> int:
    """Calculate, print, write."""
    options = _parser().parse_args(arguments)
    many, scale, overhead = (
        json.loads((options.results / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("many", "scale", "overhead")
    )
    text = report(read(many, scale, overhead), Assumptions(), options.scans, options.cores)
    (options.results / "projection.md").write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


def read(many: Mapping[str, Any], scale: Mapping[str, Any], overhead: Mapping[str, Any]) -> ScanCosts:
    """The costs of a scan, from the results of the other benchmarks."""
    alone = next(line for line in many["Lines"] if line["method"] == OURS and line["cpus"] == 1)
    tasks = {task["name"]: task for task in scale["Tasks"]}
    selection = tasks["selection of one person, nothing else"]
    search = selection["seconds"] - selection["small_seconds"]
    return ScanCosts(
        processor_seconds=alone["processor_seconds"],
        start_seconds=many["Start"]["first_seconds"] + max(search, 0),
        handing_out_seconds=overhead["Milliseconds"]["Dask, local"] / 1000,
        group_seconds=tasks["group"]["seconds"] / scale["Scans"],
        read=many["Size"]["input_megabytes"],
        written=many["Size"]["image_megabytes"],
        reported=many["Size"]["report_megabytes"],
        files=many["Size"]["files"],
    )


def hours(costs: ScanCosts, assumptions: Assumptions, scans: int, cores: int) -> float:
    """Duration of the participant level with a number of cores, all of them busy to the end."""
    per_scan = costs.processor_seconds + costs.start_seconds / assumptions.scans_per_task
    return scans * per_scan / cores / HOUR


def transferred(costs: ScanCosts, scans: int) -> float:
    """Terabytes over the network: a scan is read once, and figures are drawn while it is in memory."""
    return scans * (costs.read + costs.written + costs.reported) / 1e6


def report(costs: ScanCosts, assumptions: Assumptions, scans: int, cores: Sequence[int]) -> str:
    """The tables, and what must be known to read them."""
    total = transferred(costs, scans)
    head = ("cores", "time", "network, Gbit/s", "cost, $")
    rows = []
    for count in cores:
        duration_hours = hours(costs, assumptions, scans, count)
        gigabits = 1e6 * total / (duration_hours * HOUR) / MB_PER_GIGABIT
        cost = duration_hours * count * assumptions.core_hour
        rows.append((f"{count:,}", duration(duration_hours), number(gigabits), f"{cost:.0f}"))
    kept = scans * (costs.written + costs.reported) / 1000
    return (
        f"{markdown_table(head, rows)}\n\n"
        f"- {scans:,} scans of {number(costs.read)} MB, {number(costs.processor_seconds)} s of a core "
        f"each, pages included; {assumptions.scans_per_task} scans a task, whose start takes "
        f"{number(costs.start_seconds)} s.\n"
        f"- Disk: {number(scans * costs.read / 1e6)} TB are read, {number(kept / 1000)} TB written, in "
        f"{scans * costs.files / 1e6:.1f} million files; to keep them costs "
        f"{kept * assumptions.gigabyte_month:.0f} $ a month.\n"
        f"- Network: {number(total)} TB, where all data lie on a server; at 10 Gbit/s that takes "
        f"{duration(1e6 * total / (10 * MB_PER_GIGABIT * HOUR))}, however many cores there are.\n"
        f"- The level group: {duration(scans * costs.group_seconds / HOUR)} on one core, if it goes on as "
        f"measured. Handing out, with Dask: {number(1000 * costs.handing_out_seconds)} ms a scan, which "
        f"keeps up with {costs.processor_seconds / costs.handing_out_seconds:.0f} cores.\n"
        f"- Assumed: {assumptions.core_hour} $ for a core and hour, {assumptions.gigabyte_month} $ for a GB "
        f"and month, {MB_PER_GIGABIT:g} MB/s for a Gbit/s, cores as fast as the one measured on, which do "
        "not wait for disks.\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.projection", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--scans", type=int, default=100_000, help="default: 100,000")
    parser.add_argument("--cores", nargs="+", type=int, default=[2, 16, 128, 1024], help="numbers of cores")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
