"""Many scans in one run, and how soon the first one starts.

    python -m benchmarks.throughput [--scans N] [--repeats N] [--cpus N ...] [--out DIR]

The participant level on a dataset of T1w phantoms of 256 x 256 x 192 voxels, pages included, with 1 and 2
CPUs, in turn with reading and writing the same scans with nibabel alone, in one process: seconds per scan of
whole commands, from their start to their end. Then: how long ``--help`` takes, and how long after its start
the program starts the first scan. The table is printed and written to DIR/many.md, all numbers
to DIR/many.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.formatting import markdown_table, number
from benchmarks.measured_process import (
    MB,
    Measured,
    Run,
    add_folders,
    describe_machine,
    machine_line,
    require_success,
    run_measured,
)
from benchmarks.one_scan import FLOOR, OURS
from benchmarks.speed_scans import size_label, write_scan

ROOT = Path(__file__).parents[1]
SIZE = "head"
#: Reads and writes all scans of a dataset, one after the other.
COPY_SCRIPT = """
import sys
from pathlib import Path
import nibabel as nib, numpy as np
for path in sorted(Path(sys.argv[1]).rglob("*_T1w.nii.gz")):
    image = nib.Nifti1Image.from_filename(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), image.affine), sys.argv[2])
"""
#: What is required: seconds per scan over those of reading and writing, and seconds of a start.
MAX_RATIO, MAX_HELP_SECONDS, MAX_FIRST_SECONDS = 2.0, 1.0, 4.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """Medians of a way to do all scans: seconds per scan, and the largest process in MB."""

    method: str
    cpus: int
    seconds: float
    processor_seconds: float
    megabytes: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """Megabytes read and written per scan, and files written, page and figures included."""

    input_megabytes: float
    image_megabytes: float
    report_megabytes: float
    files: float


@dataclass(frozen=True, kw_only=True)
class Start:
    """Median seconds of ``--help``, and from the start of the program to the first scan."""

    help_seconds: float
    first_seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="many-", dir=options.work_dir) as folder:
        dataset = write_dataset(Path(folder), options.scans, options.size)
        lines = measure(dataset, options.scans, options.cpus, options.repeats)
        size = measure_size(dataset, options.scans)
        start = measure_start(dataset, options.repeats)
    text = report(lines, start, size, options.scans, options.size, options.repeats)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "many.md").write_text(text, encoding="utf-8")
    content = {
        "Machine": describe_machine(),
        "Scans": options.scans,
        "Repeats": options.repeats,
        "Lines": [asdict(line) for line in lines],
        "Start": asdict(start),
        "Size": asdict(size),
    }
    (options.out / "many.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(text, end="")
    return 0


def write_dataset(folder: Path, scans: int, size: str) -> Path:
    """A dataset of participants whose scans are all links to one."""
    image = write_scan(folder, size).image
    dataset = folder / "raw"
    dataset.mkdir()
    description = {"Name": "Many scans", "BIDSVersion": "1.10.0"}
    (dataset / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")
    for participant in range(scans):
        anat = dataset / f"sub-{participant:03d}" / "anat"
        anat.mkdir(parents=True)
        os.link(image, anat / f"sub-{participant:03d}_T1w.nii.gz")
    return dataset


def measure(
    dataset: Path, scans: int, cpus: Sequence[int], repeats: int, run: Run = run_measured
) -> list[Line]:
    """Do all scans in every way, in turn, `repeats` times.

    Raises
    ------
    RuntimeError
        A command failed.
    """
    out = dataset.with_name("out")
    ways: dict[tuple[str, int], list[str | Path]] = {
        (FLOOR, 1): [sys.executable, "-c", COPY_SCRIPT, dataset, dataset.with_name("copy.nii.gz")],
        **{(OURS, count): _command(dataset, out, count) for count in cpus},
    }
    found: dict[tuple[str, int], list[Measured]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, command in ways.items():
            shutil.rmtree(out, ignore_errors=True)
            measured = require_success(run, command)
            found[way].append(measured)
            print(f"{way[0]}, {way[1]}: {measured.seconds:.1f} s", file=sys.stderr, flush=True)
    return [
        Line(
            method=method,
            cpus=count,
            seconds=statistics.median(took.seconds for took in measured) / scans,
            processor_seconds=statistics.median(took.processor_seconds for took in measured) / scans,
            megabytes=statistics.median(took.megabytes for took in measured),
        )
        for (method, count), measured in found.items()
    ]


def measure_size(dataset: Path, scans: int) -> Size:
    """Size of what the last run has read and written."""
    written = [path for path in dataset.with_name("out").glob("sub-*/**/*") if path.is_file()]
    pages = list(dataset.with_name("out").glob("sub-*.html"))
    images = [path for path in written if path.parent.name == "anat"]

    def megabytes(paths: Iterable[Path]) -> float:
        return sum(path.stat().st_size for path in paths) / MB / scans

    return Size(
        input_megabytes=megabytes(dataset.rglob("*_T1w.nii.gz")),
        image_megabytes=megabytes(images),
        report_megabytes=megabytes({*written, *pages} - {*images}),
        files=len(written + pages) / scans,
    )


def measure_start(dataset: Path, repeats: int, run: Run = run_measured) -> Start:
    """Time the help, and the start of the first scan, which is when the log of the run is written."""
    help_seconds, first_seconds = [], []
    for _ in range(repeats):
        help_seconds.append(require_success(run, [sys.executable, ROOT / "run.py", "--help"]).seconds)
        out = dataset.with_name("out")
        shutil.rmtree(out, ignore_errors=True)
        start = time.time()
        require_success(run, [*_command(dataset, out, 1), "--participant-label", "000"])
        (log,) = (out / "logs").glob("run_*.json")
        first_seconds.append(log.stat().st_mtime - start)
    return Start(help_seconds=statistics.median(help_seconds), first_seconds=statistics.median(first_seconds))


def _command(dataset: Path, out: Path, cpus: int) -> list[str | Path]:
    # Phantoms may look out of distribution to the model, and are to be harmonized all the same.
    arguments = ["participant", "--out-of-distribution", "harmonize", "--device", "cpu", "-q"]
    return [sys.executable, ROOT / "run.py", dataset, out, *arguments, "--n-cpus", str(cpus)]


def report(lines: Sequence[Line], start: Start, size: Size, scans: int, shape: str, repeats: int) -> str:
    """The tables, and what must be known to read them."""
    floor = next(line.seconds for line in lines if line.method == FLOOR)
    head = ("method", "CPUs", "s per scan", "× reading and writing", "processor, s per scan", "peak, MB")
    rows = [
        (
            line.method,
            str(line.cpus),
            number(line.seconds),
            number(line.seconds / floor),
            number(line.processor_seconds) if line.cpus == 1 else "-",
            number(line.megabytes) if line.cpus == 1 else "-",
        )
        for line in lines
    ]
    return (
        f"{markdown_table(head, rows)}\n\n"
        f"- {scans} T1w phantoms of {size_label(shape)} voxels in one run, pages included; whole commands, "
        f"their start included. Medians of {repeats}, in turn. What is required: at most {MAX_RATIO:g} × "
        "reading and writing with all CPUs.\n"
        f"- `--help`: {number(start.help_seconds)} s (at most {MAX_HELP_SECONDS:g}). From the start of the "
        f"program to the first scan: {number(start.first_seconds)} s (at most {MAX_FIRST_SECONDS:g}).\n"
        f"- Of a scan, {number(size.input_megabytes)} MB are read, {number(size.image_megabytes)} MB of "
        f"image and {number(size.report_megabytes)} MB of page and figures written, in {size.files:g} "
        "files.\n"
        f"- {machine_line()}.\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--scans", type=int, default=24, help="scans in the dataset")
    parser.add_argument("--size", default=SIZE, help="size of a scan, as for benchmarks.speed")
    parser.add_argument("--repeats", type=int, default=3, help="times that each command is run")
    parser.add_argument("--cpus", nargs="+", type=int, default=[1, 2], help="numbers of CPUs (default: 1 2)")
    add_folders(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
