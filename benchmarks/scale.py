"""Large datasets: is what to do found out in seconds, and are all results reported on in minutes?

    python -m benchmarks.scale [--people N] [--scans N] [--repeats N] [--out DIR]

Makes a dataset of 10,000 people with two sessions, a T1w and a T2w scan each, and results of 20,000 scans, in
a temporary folder; runs the program on them, each time in a process of its own; and prints what that took
beside what is required, and beside the same on one person, which is what the program takes by itself. The
table is written to DIR/scale.md, all numbers to DIR/scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.apart import Run, add_folders, describe_machine, machine_line, run_apart, succeed
from benchmarks.table import number
from bids_harmonize.distribution import LEVELS, TISSUES
from bids_harmonize.reference import QUANTILES

ROOT = Path(__file__).parents[1]
SESSIONS, SUFFIXES = ("1", "2"), ("T1w", "T2w")
SITES = 20
#: White matter, grey matter and fluid of made-up scans, before and after harmonization.
BEFORE, AFTER = np.array([0.8, 0.6, 0.3]), np.array([1000.0, 700.0, 300.0])
#: All that the program does before the first scan and that depends on the dataset alone.
SELECTION = """
import sys
from pathlib import Path
from bids_harmonize.bids.selection import Filters, check_dataset, conflicts, select_runs
check_dataset(Path(sys.argv[1]), False)
runs = select_runs(Path(sys.argv[1]), Filters(participants=tuple(sys.argv[2:])))
print(len(runs), len(conflicts(runs)))
"""


@dataclass(frozen=True, kw_only=True)
class Required:
    """What a task may take at most; None: nothing is required."""

    seconds: float | None = None
    megabytes: float | None = None


ONE = Required(seconds=5, megabytes=300)
ALL = Required(seconds=60)
GROUP = Required(seconds=120)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command on the large dataset, the same on that of one person, and what is required."""

    name: str
    command: Sequence[str | Path]
    small: Sequence[str | Path]
    required: Required


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a task took: the medians, by themselves and on the small dataset."""

    name: str
    seconds: float
    processor_seconds: float
    megabytes: float
    small_seconds: float
    small_megabytes: float
    required: Required

    @property
    def met(self) -> bool:
        """Whether it took no more than required."""
        pairs = (
            (self.seconds, self.required.seconds),
            (self.megabytes, self.required.megabytes),
        )
        return all(most is None or value <= most for value, most in pairs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.work_dir) as folder:
        tasks = make_tasks(Path(folder), options.people, options.scans)
        lines = measure(tasks, options.repeats)
        # Before the many files are removed, which takes its time.
        _write(lines, options)
    return 0


def _write(lines: Sequence[Line], options: argparse.Namespace) -> None:
    """Print the table, and write it and all numbers."""
    text = report(lines, options.people, options.scans, options.repeats)
    print(text, end="", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scale.md").write_text(text, encoding="utf-8")
    content = {
        "Machine": describe_machine(),
        "People": options.people,
        "Scans": options.scans,
        "Repeats": options.repeats,
        "Tasks": [asdict(line) | {"met": line.met} for line in lines],
    }
    _write_json(options.out / "scale.json", content)


def measure(tasks: Sequence[Task], repeats: int, run: Run = run_apart) -> list[Line]:
    """Run every task so often, large and small in turn.

    Raises
    ------
    RuntimeError
        A command failed.
    """
    lines = []
    for task in tasks:
        large, small = [], []
        for _ in range(repeats):
            small.append(succeed(run, task.small))
            large.append(succeed(run, task.command))
        lines.append(
            Line(
                name=task.name,
                seconds=statistics.median(one.seconds for one in large),
                processor_seconds=statistics.median(one.processor_seconds for one in large),
                megabytes=statistics.median(one.megabytes for one in large),
                small_seconds=statistics.median(one.seconds for one in small),
                small_megabytes=statistics.median(one.megabytes for one in small),
                required=task.required,
            )
        )
        told = f"{lines[-1].seconds:.1f} s, {lines[-1].processor_seconds:.1f} s of the processor"
        print(f"{task.name}: {told}, {lines[-1].megabytes:.0f} MB", file=sys.stderr, flush=True)
    return lines


def report(lines: Sequence[Line], people: int, scans: int, repeats: int) -> str:
    """The table, and what must be known to read it."""
    head = (
        "task",
        "seconds",
        "required",
        "peak, MB",
        "required",
        "met",
        "processor, s",
        "one person: s",
        "MB",
    )
    rows = [
        (
            line.name,
            number(line.seconds),
            _most(line.required.seconds),
            number(line.megabytes),
            _most(line.required.megabytes),
            "yes" if line.met else "**no**",
            number(line.processor_seconds),
            number(line.small_seconds),
            number(line.small_megabytes),
        )
        for line in lines
    ]
    table = [head, ("---",) * len(head), *rows]
    text = "\n".join(f"| {' | '.join(row)} |" for row in table)
    return (
        f"{text}\n\n"
        f"- {people} people with {len(SESSIONS)} sessions of {' and '.join(SUFFIXES)}, all with sidecars; "
        f"level group: {scans} sidecars of {min(SITES, scans)} sites. Medians of {repeats}, each in a "
        "process of its own.\n"
        "- One person: the same command on a dataset of one person, which is what the program takes by "
        "itself, libraries and models included.\n"
        f"- {machine_line()}.\n"
    )


def _most(value: float | None) -> str:
    return "-" if value is None else f"≤ {value:g}"


def make_tasks(folder: Path, people: int, scans: int) -> list[Task]:
    """Write the datasets and results, and say what to run on them."""
    large, small = write_dataset(folder / "raw", people), write_dataset(folder / "one", 1)
    results, few = (
        write_results(folder / "results", large, scans),
        write_results(folder / "few", small, 1),
    )
    label, other = label_of(people // 2), label_of(0)
    run: tuple[str | Path, ...] = (sys.executable, ROOT / "run.py")
    select, out = (sys.executable, "-c", SELECTION), folder / "out"
    dry = ["participant", "--dry-run", "--device", "cpu"]
    return [
        Task(
            name="selection of one person, nothing else",
            command=[*select, large, label],
            small=[*select, small, other],
            required=ONE,
        ),
        Task(
            name="selection of all, nothing else",
            command=[*select, large],
            small=[*select, small],
            required=ALL,
        ),
        Task(
            name="participant --participant-label X --dry-run",
            command=[*run, large, out, *dry, "--participant-label", label],
            small=[*run, small, out, *dry, "--participant-label", other],
            required=ONE,
        ),
        Task(
            name="participant --dry-run",
            command=[*run, large, out, *dry],
            small=[*run, small, out, *dry],
            required=ALL,
        ),
        Task(
            name="group",
            command=[*run, large, results, "group"],
            small=[*run, small, few, "group"],
            required=GROUP,
        ),
    ]


def label_of(person: int) -> str:
    """The label of a made-up person."""
    return f"{person:05d}"


def write_dataset(folder: Path, people: int) -> Path:
    """A raw dataset: tiny images, all links to a few, with sidecars."""
    folder.mkdir(parents=True)
    _write_json(folder / "dataset_description.json", {"Name": "Many people", "BIDSVersion": "1.10.0"})
    sources = folder.with_name(f"{folder.name}-sources")
    sources.mkdir()
    contents = {}
    # A file has no more than 65,000 names on some file systems, so that each session has its own.
    for session in SESSIONS:
        for suffix in SUFFIXES:
            image, sidecar = (sources / f"{session}{suffix}{end}" for end in (".nii.gz", ".json"))
            nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.int16), np.eye(4)), image)
            _write_json(sidecar, {"MagneticFieldStrength": 3, "EchoTime": 0.003, "BodyPart": "HEAD"})
            contents[session, suffix] = (image, sidecar)
    for person in map(label_of, range(people)):
        for session in SESSIONS:
            anat = folder / f"sub-{person}" / f"ses-{session}" / "anat"
            anat.mkdir(parents=True)
            for suffix in SUFFIXES:
                stem = f"{anat}/sub-{person}_ses-{session}_{suffix}"
                image, sidecar = contents[session, suffix]
                os.link(image, f"{stem}.nii.gz")
                os.link(sidecar, f"{stem}.json")
    return folder


def write_results(derivatives: Path, dataset: Path, scans: int) -> Path:
    """Sidecars of so many harmonized T1w scans, and the sites in the dataset's ``participants.tsv``."""
    rng = np.random.default_rng(0)
    rows = ["participant_id\tsite"]
    gains = rng.normal(1, 0.1, (SITES, len(TISSUES)))
    for n in range(scans):
        person, site = label_of(n), n % SITES
        before = BEFORE * gains[site] * rng.normal(1, 0.02, len(TISSUES))
        after = AFTER * rng.normal(1, 0.02, len(TISSUES))
        path = derivatives / f"sub-{person}" / "anat" / f"sub-{person}_desc-harmonized_T1w.json"
        path.parent.mkdir(parents=True)
        _write_json(path, {"BidsHarmonize": _record({"Before": before, "After": after})})
        rows.append(f"sub-{person}\tsite {site}")
    (dataset / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return derivatives


def _record(tissues: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the participant level writes of a scan, as far as the level group looks at it."""
    # Dark, middle and bright tissue, as much of each, one after the other.
    curves = {
        when: [float(f"{v:.4g}") for v in np.interp(QUANTILES, [0.1, 0.5, 0.9], np.sort(values))]
        for when, values in tissues.items()
    }
    return {
        "Model": "T1w",
        "Harmonized": True,
        "OutputScale": {"Unit": 1000.0},
        "OutOfDistribution": {"Checked": True, "Flagged": False, "Score": 0.1},
        "Warnings": [],
        "ElapsedSeconds": 3.0,
        "Intensities": {
            "Levels": LEVELS,
            "SkullStripped": False,
            "Foreground": curves,
            "Brain": curves,
            "Tissues": {
                when: dict(zip(TISSUES, values.tolist(), strict=True)) for when, values in tissues.items()
            },
        },
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=10_000, help="people in the raw dataset")
    parser.add_argument("--scans", type=int, default=20_000, help="scans that the level group reports on")
    parser.add_argument("--repeats", type=int, default=3, help="times that each command is run")
    add_folders(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
