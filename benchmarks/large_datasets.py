"""Large datasets: are runs selected in seconds, and are all results reported on in minutes?

    python -m benchmarks.large_datasets [--participants N] [--scans N] [--repeats N] [--out DIR]

Makes a dataset of 10,000 participants with two sessions, a T1w and a T2w scan each, and results of 20,000
scans, in a temporary folder; runs the program on them, each time in a process of its own; and prints what
that took beside what is required, and beside the same on one participant, which is what the program takes by
itself. The table is written to DIR/scale.md, all numbers to DIR/scale.json.
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

from benchmarks.formatting import limit, markdown_table, number
from benchmarks.measured_process import (
    Run,
    add_folders,
    describe_machine,
    machine_line,
    require_success,
    run_measured,
)
from bids_harmonize.bids.derivatives import PROVENANCE_KEY
from bids_harmonize.files.rounding import round_significant
from bids_harmonize.measures.quantiles import QUANTILES
from bids_harmonize.measures.scan_intensities import (
    TISSUES,
    IntensityProfile,
    ScanIntensities,
)
from bids_harmonize.measures.types import Array
from bids_harmonize.results.provenance import OutOfDistribution, OutputScale, Provenance

ROOT = Path(__file__).parents[1]
SESSIONS, SUFFIXES = ("1", "2"), ("T1w", "T2w")
SITES = 20
#: White matter, grey matter and fluid of made-up scans, before and after harmonization.
BEFORE, AFTER = np.array([0.8, 0.6, 0.3]), np.array([1000.0, 700.0, 300.0])
#: All that the program does before the first scan and that depends on the dataset alone.
SELECTION = """
import sys
from pathlib import Path
from bids_harmonize.bids.filters import Filters
from bids_harmonize.bids.query import check_dataset, select_runs
from bids_harmonize.bids.run import conflicts
check_dataset(Path(sys.argv[1]), False)
runs = select_runs(Path(sys.argv[1]), Filters(participants=tuple(sys.argv[2:])))
print(len(runs), len(conflicts(runs)))
"""


@dataclass(frozen=True, kw_only=True)
class Required:
    """What a task may take at most; None where nothing is required."""

    seconds: float | None = None
    megabytes: float | None = None


REQUIRED_FOR_ONE = Required(seconds=5, megabytes=300)
REQUIRED_FOR_ALL = Required(seconds=60)
REQUIRED_FOR_GROUP = Required(seconds=120)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command on the large dataset, the same on that of one participant, and what is required."""

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
        return all(maximum is None or value <= maximum for value, maximum in pairs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.work_dir) as folder:
        tasks = make_tasks(Path(folder), options.participants, options.scans)
        lines = measure(tasks, options.repeats)
        # The results are written before the files of the dataset are removed, which takes a while.
        _write(lines, options)
    return 0


def _write(lines: Sequence[Line], options: argparse.Namespace) -> None:
    """Print the table, and write it and all numbers."""
    text = report(lines, options.participants, options.scans, options.repeats)
    print(text, end="", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scale.md").write_text(text, encoding="utf-8")
    content = {
        "Machine": describe_machine(),
        "People": options.participants,
        "Scans": options.scans,
        "Repeats": options.repeats,
        "Tasks": [asdict(line) | {"met": line.met} for line in lines],
    }
    _write_json(options.out / "scale.json", content)


def measure(tasks: Sequence[Task], repeats: int, run: Run = run_measured) -> list[Line]:
    """Run every task `repeats` times, on the large and the small dataset in turn.

    Raises
    ------
    RuntimeError
        A command failed.
    """
    lines = []
    for task in tasks:
        large, small = [], []
        for _ in range(repeats):
            small.append(require_success(run, task.small))
            large.append(require_success(run, task.command))
        lines.append(
            Line(
                name=task.name,
                seconds=statistics.median(took.seconds for took in large),
                processor_seconds=statistics.median(took.processor_seconds for took in large),
                megabytes=statistics.median(took.megabytes for took in large),
                small_seconds=statistics.median(took.seconds for took in small),
                small_megabytes=statistics.median(took.megabytes for took in small),
                required=task.required,
            )
        )
        line = lines[-1]
        print(
            f"{task.name}: {line.seconds:.1f} s, processor {line.processor_seconds:.1f} s, "
            f"{line.megabytes:.0f} MB",
            file=sys.stderr,
            flush=True,
        )
    return lines


def report(lines: Sequence[Line], participants: int, scans: int, repeats: int) -> str:
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
            limit(line.required.seconds),
            number(line.megabytes),
            limit(line.required.megabytes),
            "yes" if line.met else "**no**",
            number(line.processor_seconds),
            number(line.small_seconds),
            number(line.small_megabytes),
        )
        for line in lines
    ]
    return (
        f"{markdown_table(head, rows)}\n\n"
        f"- {participants} participants, {len(SESSIONS)} sessions of {' and '.join(SUFFIXES)}, all with "
        f"sidecars; group level: {scans} sidecars of {min(SITES, scans)} sites. Medians of {repeats}, each "
        "in a process of its own.\n"
        "- One person: the same command on a dataset of one participant, which is what the program takes by "
        "itself, libraries and models included.\n"
        f"- {machine_line()}.\n"
    )


def make_tasks(folder: Path, participants: int, scans: int) -> list[Task]:
    """Write the datasets and results, and list what to run on them."""
    large, small = write_dataset(folder / "raw", participants), write_dataset(folder / "one", 1)
    results, few = (
        write_results(folder / "results", large, scans),
        write_results(folder / "few", small, 1),
    )
    label, other = label_of(participants // 2), label_of(0)
    run: tuple[str | Path, ...] = (sys.executable, ROOT / "run.py")
    select, out = (sys.executable, "-c", SELECTION), folder / "out"
    dry = ["participant", "--dry-run", "--device", "cpu"]
    return [
        Task(
            name="selection of one person, nothing else",
            command=[*select, large, label],
            small=[*select, small, other],
            required=REQUIRED_FOR_ONE,
        ),
        Task(
            name="selection of all, nothing else",
            command=[*select, large],
            small=[*select, small],
            required=REQUIRED_FOR_ALL,
        ),
        Task(
            name="participant --participant-label X --dry-run",
            command=[*run, large, out, *dry, "--participant-label", label],
            small=[*run, small, out, *dry, "--participant-label", other],
            required=REQUIRED_FOR_ONE,
        ),
        Task(
            name="participant --dry-run",
            command=[*run, large, out, *dry],
            small=[*run, small, out, *dry],
            required=REQUIRED_FOR_ALL,
        ),
        Task(
            name="group",
            command=[*run, large, results, "group"],
            small=[*run, small, few, "group"],
            required=REQUIRED_FOR_GROUP,
        ),
    ]


def label_of(number: int) -> str:
    """The label of a made-up participant."""
    return f"{number:05d}"


def write_dataset(folder: Path, participants: int) -> Path:
    """Write a raw dataset of tiny images with sidecars, all of them links to a few files."""
    folder.mkdir(parents=True)
    _write_json(folder / "dataset_description.json", {"Name": "Many participants", "BIDSVersion": "1.10.0"})
    sources = folder.with_name(f"{folder.name}-sources")
    sources.mkdir()
    contents = {}
    # Some file systems allow no more than 65,000 links to a file, so each session has files of its own.
    for session in SESSIONS:
        for suffix in SUFFIXES:
            image, sidecar = (sources / f"{session}{suffix}{end}" for end in (".nii.gz", ".json"))
            nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.int16), np.eye(4)), image)
            _write_json(sidecar, {"MagneticFieldStrength": 3, "EchoTime": 0.003, "BodyPart": "HEAD"})
            contents[session, suffix] = (image, sidecar)
    for participant in map(label_of, range(participants)):
        for session in SESSIONS:
            anat = folder / f"sub-{participant}" / f"ses-{session}" / "anat"
            anat.mkdir(parents=True)
            for suffix in SUFFIXES:
                stem = f"{anat}/sub-{participant}_ses-{session}_{suffix}"
                image, sidecar = contents[session, suffix]
                os.link(image, f"{stem}.nii.gz")
                os.link(sidecar, f"{stem}.json")
    return folder


def write_results(derivatives: Path, dataset: Path, scans: int) -> Path:
    """Write sidecars of harmonized T1w scans, and the sites in the dataset's ``participants.tsv``."""
    rng = np.random.default_rng(0)
    rows = ["participant_id\tsite"]
    gains = rng.normal(1, 0.1, (SITES, len(TISSUES)))
    for n in range(scans):
        participant, site = label_of(n), n % SITES
        before = BEFORE * gains[site] * rng.normal(1, 0.02, len(TISSUES))
        after = AFTER * rng.normal(1, 0.02, len(TISSUES))
        path = derivatives / f"sub-{participant}" / "anat" / f"sub-{participant}_desc-harmonized_T1w.json"
        path.parent.mkdir(parents=True)
        _write_json(path, {PROVENANCE_KEY: _provenance(before, after).to_json()})
        rows.append(f"sub-{participant}\tsite {site}")
    (dataset / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return derivatives


def _provenance(before: Array, after: Array) -> Provenance:
    """What the participant level writes of a scan, as far as the group level reads it."""
    return Provenance(
        model="T1w",
        harmonized=True,
        output_scale=OutputScale(unit=1000.0),
        out_of_distribution=OutOfDistribution(checked=True, flagged=False, score=0.1),
        intensities=ScanIntensities(before=_profile(before), after=_profile(after)),
        elapsed_seconds=3.0,
    )


def _profile(medians: Array) -> IntensityProfile:
    """Intensities that run through a dark, a middle and a bright tissue, each as frequent as the others."""
    curve = np.interp(QUANTILES, [0.1, 0.5, 0.9], np.sort(medians))
    rounded = np.array([round_significant(value, 4) for value in curve])
    tissues = dict(zip(TISSUES, medians.tolist(), strict=True))
    return IntensityProfile(foreground=rounded, brain=rounded, tissues=tissues)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large_datasets", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--participants",
        "--people",
        type=int,
        default=10_000,
        help="participants in the raw dataset",
    )
    parser.add_argument("--scans", type=int, default=20_000, help="scans that the group level reports on")
    parser.add_argument("--repeats", type=int, default=3, help="times that each command is run")
    add_folders(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
