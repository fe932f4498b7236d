"""A hundred thousand scans, on paper: time, disk, network and cost, from what was measured.

    python -m benchmarks.projection [--scans N] [--cores N ...] [--results DIR]

Reads what `benchmarks.many`, `benchmarks.scale` and `benchmarks.overhead` have written into DIR, prints a
table and writes it to DIR/projection.md. Nothing is run. What is not measured is assumed, and said: that
cores do not hinder each other, that a task does a hundred scans, that the network gives what it promises, and
prices.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.apart import RESULTS
from benchmarks.one_scan import OURS
from benchmarks.table import number

HOUR = 3600.0
#: Bits of a gigabit network that arrive as bytes of files.
MB_PER_GIGABIT = 110.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one scan takes, and what is taken once.

    Attributes
    ----------
    processor_seconds
        Per scan, one after the other with one CPU.
    start_seconds
        Of every task, until its first scan; the search for its people in a large dataset is included.
    handing_out_seconds
        Per scan, with Dask.
    group_seconds
        Per scan, of the level group.
    read, written, shown
        Megabytes per scan: input, output image, page and figures.
    files
        Per scan.
    """

    processor_seconds: float
    start_seconds: float
    handing_out_seconds: float
    group_seconds: float
    read: float
    written: float
    shown: float
    files: float


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What is not measured: scans of a task; dollars for a core and hour, and for a GB and month."""

    scans_per_task: int = 100
    core_hour: float = 0.04
    gigabyte_month: float = 0.02


def main(arguments: Sequence[str] | None = None) -> int:
    """Reckon, print, write."""
    options = _parser().parse_args(arguments)
    many, scale, overhead = (
        json.loads((options.results / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("many", "scale", "overhead")
    )
    text = report(read(many, scale, overhead), Assumed(), options.scans, options.cores)
    (options.results / "projection.md").write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


def read(many: Mapping[str, Any], scale: Mapping[str, Any], overhead: Mapping[str, Any]) -> Measured:
    """What the other benchmarks have found."""
    alone = next(line for line in many["Lines"] if line["method"] == OURS and line["cpus"] == 1)
    tasks = {task["name"]: task for task in scale["Tasks"]}
    selection = tasks["selection of one person, nothing else"]
    search = selection["seconds"] - selection["small_seconds"]
    return Measured(
        processor_seconds=alone["processor_seconds"],
        start_seconds=many["Start"]["first_seconds"] + max(search, 0),
        handing_out_seconds=overhead["Milliseconds"]["Dask, local"] / 1000,
        group_seconds=tasks["group"]["seconds"] / scale["Scans"],
        read=many["Size"]["input_megabytes"],
        written=many["Size"]["image_megabytes"],
        shown=many["Size"]["report_megabytes"],
        files=many["Size"]["files"],
    )


def hours(measured: Measured, assumed: Assumed, scans: int, cores: int) -> float:
    """Of the level participant, with as many cores, all of them busy to the end."""
    per_scan = measured.processor_seconds + measured.start_seconds / assumed.scans_per_task
    return scans * per_scan / cores / HOUR


def moved(measured: Measured, scans: int) -> float:
    """Terabytes over the network: the page reads both images again."""
    return scans * (2 * measured.read + 2 * measured.written + measured.shown) / 1e6


def report(measured: Measured, assumed: Assumed, scans: int, cores: Sequence[int]) -> str:
    """The tables, and what must be known to read them."""
    total = moved(measured, scans)
    head = ("cores", "time", "network, Gbit/s", "cost, $")
    rows = []
    for count in cores:
        taken = hours(measured, assumed, scans, count)
        gigabits = 1e6 * total / (taken * HOUR) / MB_PER_GIGABIT
        cost = taken * count * assumed.core_hour
        rows.append((f"{count:,}", _time(taken), number(gigabits), f"{cost:.0f}"))
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))
    kept = scans * (measured.written + measured.shown) / 1000
    return (
        f"{table}\n\n"
        f"- {scans:,} scans of {number(measured.read)} MB, {number(measured.processor_seconds)} s of a core "
        f"each, pages included; {assumed.scans_per_task} scans a task, whose start takes "
        f"{number(measured.start_seconds)} s.\n"
        f"- Disk: {number(scans * measured.read / 1e6)} TB are read, {number(kept / 1000)} TB written, in "
        f"{scans * measured.files / 1e6:.1f} million files; to keep them costs "
        f"{kept * assumed.gigabyte_month:.0f} $ a month.\n"
        f"- Network: {number(total)} TB, as pages read both images again, where all data lie on a server; at "
        f"10 Gbit/s that takes {_time(1e6 * total / (10 * MB_PER_GIGABIT * HOUR))}, however many cores there "
        "are.\n"
        f"- The level group: {_time(scans * measured.group_seconds / HOUR)} on one core, if it goes on as "
        f"measured. Handing out, with Dask: {number(1000 * measured.handing_out_seconds)} ms a scan, which "
        f"keeps up with {measured.processor_seconds / measured.handing_out_seconds:.0f} cores.\n"
        f"- Assumed: {assumed.core_hour} $ for a core and hour, {assumed.gigabyte_month} $ for a GB and "
        f"month, {MB_PER_GIGABIT:g} MB/s for a Gbit/s, cores as fast as the one measured on, which do not "
        "wait for disks.\n"
    )


def _time(taken: float) -> str:
    if taken >= 48:
        return f"{number(taken / 24)} days"
    return f"{number(taken)} h" if taken >= 1 else f"{number(60 * taken)} min"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.projection", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--scans", type=int, default=100_000)
    parser.add_argument("--cores", nargs="+", type=int, default=[2, 16, 128, 1024])
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
