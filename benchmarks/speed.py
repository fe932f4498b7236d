"""Speed and memory, beside the methods that users would use instead and beside reading and writing alone.

    python -m benchmarks.speed [--sizes 64 256 thick] [--repeats N] [--methods NAME ...] [--out DIR]

Every measurement is a command in a process of its own, from its start to the written file; all methods take
turns in one run. The scans are T1w phantoms (int16, with noise, so that they compress as real ones do) of one
field of view at growing resolution, one of the usual size of a head, and one of thick slices. The table is
printed and written to DIR/speed.md, all numbers to DIR/speed.json, a figure to DIR/speed.png. The largest
scans take long and much memory: a command is stopped after `--limit` seconds, and larger scans are not tried
by that method.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.formatting import markdown_table, number_or_dash
from benchmarks.measured_process import Measured, add_folders, describe_machine, machine_line, run_measured
from benchmarks.one_scan import FLOOR, METHODS, N4_WHOLE, OURS
from benchmarks.speed_scans import CUBES, SHAPES, Files, size_label, voxels_of, write_scan
from benchmarks.table import OTHER_COLOUR, OURS_COLOUR
from bids_harmonize.version import version

#: Methods that are fast enough to be measured at every size.
USUAL = [name for name in METHODS if name != N4_WHOLE]
#: From this many voxels on, commands take minutes and are run once.
LARGE = 20_000_000
PACKAGES = ("intensity-normalization", "SimpleITK", "nibabel", "numpy", "torch")
#: The environment variables by which libraries are told their number of threads.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
STYLES = ("-", "--", ":", "-.")
MARKERS = "osv^D"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method, on which device and with how many threads."""

    method: str
    device: str = "cpu"
    threads: int = 1

    @property
    def where(self) -> str:
        """Device and threads, as a phrase."""
        return self.device if self.device != "cpu" else f"cpu, {self.threads}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one case took on one scan: medians, or why it took nothing.

    Attributes
    ----------
    seconds
        The whole command.
    inner_seconds
        The call that harmonizes, without start, reading and writing.
    megabytes
        Peak of the whole command.
    failure
        Empty where all went well.
    """

    case: Case
    size: str
    voxels: int
    seconds: float = np.nan
    inner_seconds: float = np.nan
    megabytes: float = np.nan
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A straight line of seconds against voxels."""

    seconds_per_million: float
    constant: float
    r2: float
    points: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = _parser().parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="speed-", dir=options.work_dir) as folder:
        slow: set[Case] = set()
        cases = list(make_cases(options.methods, options.threads, options.devices or devices()))
        for size in sorted(options.sizes, key=voxels_of):
            print(f"drawing {size}", file=sys.stderr, flush=True)
            files = write_scan(Path(folder), size)
            remaining = [case for case in cases if case not in slow]
            repeats = options.repeats if files.voxels < LARGE else 1
            rows += measure(remaining, files, repeats, options.limit)
            slow |= {row.case for row in rows if row.failure}
            files.image.unlink()
    text = report(rows, options.repeats)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "speed.md").write_text(text, encoding="utf-8")
    _write_json(options.out / "speed.json", rows, options.repeats)
    draw(rows, options.out / "speed.png")
    print(text, end="")
    return 0


def devices() -> list[str]:
    """The CPU, and a GPU if one is available."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def make_cases(methods: Sequence[str], threads: Sequence[int], devices: Sequence[str]) -> Iterator[Case]:
    """Every method with every number of threads on the CPU, and ours on the other devices too."""
    for method, count in product(methods, threads):
        yield Case(method=method, threads=count)
    for device in devices:
        if device != "cpu" and OURS in methods:
            yield Case(method=OURS, device=device)


# --- The measurements -------------------------------------------------------------------------------------

Run = Callable[..., Measured]


def measure(
    cases: Sequence[Case], files: Files, repeats: int, limit: float, run: Run = run_measured
) -> list[Row]:
    """Run all cases in turn, `repeats` times; a case that fails is not tried again."""
    found: dict[Case, list[tuple[Measured, float]]] = {case: [] for case in cases}
    failures: dict[Case, str] = {}
    target = files.image.with_name("out_T1w.nii.gz")
    for _, case in product(range(repeats), cases):
        if case in failures:
            continue
        measured, inner, failure = _once(case, files, target, limit, run)
        print(
            f"{files.size} {case.method}, {case.where}: {failure or f'{measured.seconds:.1f} s'}",
            file=sys.stderr,
            flush=True,
        )
        if failure:
            failures[case] = failure
        else:
            found[case].append((measured, inner))
    return [_row(case, files, found[case], failures.get(case, "")) for case in cases]


def _once(case: Case, files: Files, target: Path, limit: float, run: Run) -> tuple[Measured, float, str]:
    environment = dict.fromkeys(THREADS, str(case.threads))
    script = _script(case, files, target)
    if case.method != OURS:
        measured = run(script, environment=environment, limit=limit)
        return measured, _inner(measured), _failure(measured, limit)
    # The command that users run does more than the inner call, and does not report how long that took.
    measured = run(_command(case, files, target), environment=environment, limit=limit)
    if failure := _failure(measured, limit):
        return measured, np.nan, failure
    inside = run(script, environment=environment, limit=limit)
    return measured, _inner(inside), _failure(inside, limit)


def _command(case: Case, files: Files, target: Path) -> list[str]:
    # Phantoms may look out of distribution to the model, and are to be harmonized all the same.
    return [
        *(sys.executable, "-m", "bids_harmonize.cli.image", str(files.image), str(target), "--force", "-q"),
        *("--modality", "T1w", "--out-of-distribution", "harmonize"),
        *("--device", case.device, "--omp-nthreads", str(case.threads)),
    ]


def _script(case: Case, files: Files, target: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "benchmarks.one_scan", case.method, str(files.image), str(target)),
        *("--mask", str(files.mask), "--standard", str(files.standard)),
        *("--threads", str(case.threads), "--device", case.device),
    ]


def _inner(measured: Measured) -> float:
    if measured.code != 0:
        return np.nan
    return float(json.loads(measured.output.splitlines()[-1])["InnerSeconds"])


def _failure(measured: Measured, limit: float) -> str:
    if measured.code is None:
        return f"> {limit:g} s"
    if measured.code:
        return (measured.error.strip().splitlines() or [f"exit code {measured.code}"])[-1][:200]
    return ""


def _row(case: Case, files: Files, found: Sequence[tuple[Measured, float]], failure: str) -> Row:
    if failure or not found:
        return Row(case=case, size=files.size, voxels=files.voxels, failure=failure)
    return Row(
        case=case,
        size=files.size,
        voxels=files.voxels,
        seconds=statistics.median(measured.seconds for measured, _ in found),
        inner_seconds=statistics.median(inner for _, inner in found),
        megabytes=statistics.median(measured.megabytes for measured, _ in found),
    )


# --- The table and the figure -----------------------------------------------------------------------------


def fit_line(voxels: Sequence[int], seconds: Sequence[float]) -> Fit | None:
    """Least squares; None for fewer than three points, which determine no line."""
    if len(voxels) < 3:
        return None
    millions, values = np.array(voxels) / 1e6, np.array(seconds)
    slope, constant = np.polyfit(millions, values, 1)
    left = float(np.sum((values - slope * millions - constant) ** 2))
    total = float(np.sum((values - values.mean()) ** 2))
    return Fit(
        seconds_per_million=float(slope),
        constant=float(constant),
        r2=1 - left / total if total > 0 else float("nan"),
        points=len(voxels),
    )


def fits(rows: Sequence[Row]) -> dict[Case, dict[str, Fit]]:
    """Per case, the lines of the whole command and of the inner call."""
    found: dict[Case, dict[str, Fit]] = {}
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case and not row.failure]
        lines = {
            "whole": fit_line([row.voxels for row in own], [row.seconds for row in own]),
            "inner": fit_line([row.voxels for row in own], [row.inner_seconds for row in own]),
        }
        found[case] = {name: line for name, line in lines.items() if line is not None}
    return found


def ratio_to(rows: Sequence[Row], row: Row, method: str, *, inner: bool = False) -> float:
    """Seconds of the whole command, or of the inner call, over those of another method.

    The other method ran on the CPU, with as many threads and on the same scan.
    """
    for other in rows:
        same = (other.size, other.case.threads) == (row.size, row.case.threads)
        if same and other.case.method == method and other.case.device == "cpu":
            return row.inner_seconds / other.inner_seconds if inner else row.seconds / other.seconds
    return float("nan")


def report(rows: Sequence[Row], repeats: int) -> str:
    """The tables, and what must be known to read them."""
    return (
        f"{_table(rows)}\n\n{_fit_table(rows)}\n\n"
        f"- {machine_line()}. Medians of {repeats}, of scans above {LARGE / 1e6:g} million voxels single "
        "runs; all methods in turn in one run.\n"
        "- Whole command: from the start of the process to the written .nii.gz, peak of its memory; × "
        "reading and writing, × ours: over these, with as many threads, on the CPU. Ours is "
        "`bids-harmonize-image`, which also checks the file, recognizes the scan and writes a sidecar.\n"
        "- Reading and writing: nibabel reads the scan, writes it as float32, and does nothing else.\n"
        "- Inner call: the first of its process, on an image in memory, libraries and model loaded; of "
        "reading and writing, both of them without the start of the process, which is what × reading and "
        "writing of the inner calls is over. Nyúl is "
        "fitted beforehand. Nyúl, FCM and N4 are given a mask of the brain, which ours does not need; N4 "
        f"corrects the receive field only, fitted on every fourth voxel, if not as {N4_WHOLE!r}.\n"
        f"- {', '.join(f'{name} {release}' for name, release in versions().items())}.\n"
    )


def _table(rows: Sequence[Row]) -> str:
    head = (
        *("scan", "million voxels", "method", "device, threads", "whole command, s", "× reading and writing"),
        *("× ours", "inner call, s", "× reading and writing", "peak, MB"),
    )
    body = []
    for row in rows:
        scan = (size_label(row.size), f"{row.voxels / 1e6:.2f}")
        values = (
            row.seconds,
            ratio_to(rows, row, FLOOR),
            ratio_to(rows, row, OURS),
            row.inner_seconds,
            ratio_to(rows, row, FLOOR, inner=True),
            row.megabytes,
        )
        first = row.failure.replace("|", "/") if row.failure else number_or_dash(values[0])
        cells = (first, *(number_or_dash(value) for value in values[1:]))
        body.append((*scan, row.case.method, row.case.where, *cells))
    return markdown_table(head, body)


def _fit_table(rows: Sequence[Row]) -> str:
    head = ("method", "device, threads", "of", "s per million voxels", "constant, s", "R²", "scans")
    body = []
    for case, found in fits(rows).items():
        for name, line in found.items():
            values = (
                number_or_dash(line.seconds_per_million),
                number_or_dash(line.constant),
                f"{line.r2:.4f}",
            )
            body.append((case.method, case.where, name, *values, str(line.points)))
    return markdown_table(head, body)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Seconds of the whole command against voxels, both on a logarithmic scale."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    axis = figure.subplots()
    cases = list(dict.fromkeys(row.case for row in rows))
    methods = list(dict.fromkeys(case.method for case in cases))
    settings = list(dict.fromkeys(case.where for case in cases))
    for case in cases:
        own = sorted(
            ((row.voxels, row.seconds) for row in rows if row.case == case and not row.failure),
        )
        if own:
            axis.plot(
                *zip(*own, strict=True),
                color=OURS_COLOUR if case.method == OURS else OTHER_COLOUR,
                linestyle=STYLES[settings.index(case.where) % len(STYLES)],
                marker=MARKERS[methods.index(case.method) % len(MARKERS)],
                label=f"{case.method} ({case.where})",
            )
    axis.set(xscale="log", yscale="log", xlabel="voxels", ylabel="seconds, whole command")
    axis.grid(which="both", color="#e6e9ec", linewidth=0.6)
    axis.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110)


def _write_json(path: Path, rows: Sequence[Row], repeats: int) -> None:
    content: dict[str, Any] = {
        "Machine": describe_machine(),
        "Versions": versions(),
        "Repeats": repeats,
        "Rows": [
            {key: None if value != value else value for key, value in asdict(row).items()} for row in rows
        ],
        "Fits": [
            {"case": asdict(case), "of": name, **asdict(line)}
            for case, found in fits(rows).items()
            for name, line in found.items()
        ],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of this program and of what it is compared with."""
    return {"bids-harmonize": version()} | {name: metadata.version(name) for name in PACKAGES}


def _size(text: str) -> str:
    if text not in SHAPES and not (text.isdecimal() and int(text) >= 16):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of voxels (16 or more) nor one of {', '.join(SHAPES)}"
        )
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=_size,
        default=[*map(str, CUBES), *SHAPES],
        help="voxels along the side of a cube, or "
        + ", ".join(f"{name} for {' x '.join(map(str, shape))}" for name, shape in SHAPES.items()),
    )
    parser.add_argument("--repeats", type=int, default=3, help="times that each command is run")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=USUAL, help=f"default: all but {N4_WHOLE!r}"
    )
    parser.add_argument(
        "--threads", nargs="+", type=int, default=[1, 2], help="numbers of threads (default: 1 2)"
    )
    parser.add_argument("--devices", nargs="+", help="default: cpu, and cuda if a GPU is available")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a command is stopped")
    add_folders(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
