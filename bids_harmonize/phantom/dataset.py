"""A digital multi-site head, written as a raw BIDS dataset.

The demonstration, the tests and the benchmarks run on it: every participant is an analytic head with an
anatomy of its own, and every site scans its participants with its own field strength, sequence, timing, grid,
receiver gain, shading and noise. The signals are those of `bids_harmonize.simulation.protocols`, so the truth
of a voxel is known.

Positions are millimetres in RAS+ (right, anterior, superior), times milliseconds, flip angles degrees.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_harmonize.errors import BadData, CannotCreate, NoInput
from bids_harmonize.files.atomic import output_error, remove_stale_temp_files, write_bytes, write_text
from bids_harmonize.files.json_object import read_object
from bids_harmonize.phantom.anatomy import Head, head_labels
from bids_harmonize.phantom.scanner import render
from bids_harmonize.phantom.sidecars import (
    COMMON_SIDECAR,
    PARTICIPANTS_JSON,
    README,
    dataset_description,
    sidecar,
)
from bids_harmonize.phantom.sites import PhantomScan, plan_runs


def write_phantom(folder: Path, *, seed: int = 0, sites: int = 4, people_per_site: int = 2) -> Path:
    """Write the phantom as a raw BIDS dataset.

    The same arguments give the same bytes on the same machine. Writing over the same phantom is allowed.

    Parameters
    ----------
    folder : Path
        The folder to write into; it is created.
    seed : int
        Seed of anatomies, shading, noise and ages.
    sites : int
        Number of sites; beyond the fourth they are the first four with other timing and gain.
    people_per_site : int
        Number of participants, each with a T1w and a T2w scan.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CannotCreate
        If the folder holds something else, or a file or folder cannot be made.
    InputOutputError
        If writing fails half-way.
    UsageError
        If the arguments make no dataset.
    """
    runs = plan_runs(seed=seed, sites=sites, people_per_site=people_per_site)
    description = dataset_description(seed, sites, people_per_site)
    _make_folder(folder, description)
    # A process that was killed while it wrote this phantom left these.
    remove_stale_temp_files(folder, deep=True)
    _write_json(folder / "dataset_description.json", description)
    _write_tables(folder, runs, seed)
    for seeds, scans in groupby(runs, key=lambda run: run.seeds):
        head = head_labels(*seeds)
        for run in scans:
            _write_run(folder, run, head)
    return folder


def _make_folder(folder: Path, description: dict[str, Any]) -> None:
    """Make the folder, unless it holds anything but this phantom."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_occupied = any(folder.iterdir())
    except OSError as error:
        raise output_error(folder, error) from error
    if is_occupied and _phantom_key(folder) != description["Phantom"]:
        raise CannotCreate(f"{folder} is not empty and does not hold this phantom; name another folder")


def _phantom_key(folder: Path) -> Any:
    try:
        return read_object(folder / "dataset_description.json").get("Phantom")
    except (BadData, NoInput):
        return None


def _write_tables(folder: Path, runs: Sequence[PhantomScan], seed: int) -> None:
    rows = ["participant_id\tsite\tage"]
    for (_, person), scans in groupby(runs, key=lambda run: run.seeds):
        run = next(scans)
        age = np.random.default_rng((seed, person, 4)).integers(20, 80)
        rows.append(f"{run.participant}\t{run.site}\t{age}")
    write_text(folder / "participants.tsv", "\n".join(rows) + "\n")
    _write_json(folder / "participants.json", PARTICIPANTS_JSON)
    write_text(folder / "README.md", README)
    for suffix in ("T1w", "T2w"):
        _write_json(folder / f"{suffix}.json", COMMON_SIDECAR)


def _write_run(folder: Path, run: PhantomScan, head: Head) -> None:
    noise_seed = (*run.seeds, 2 if run.suffix == "T1w" else 5)
    scan = render(head, run.protocol, run.grid, run.receiver, seed=noise_seed)
    voxels = np.minimum(np.rint(scan), np.iinfo(run.dtype).max).astype(run.dtype)
    image = nib.Nifti1Image(voxels, run.grid.affine)
    image.set_qform(run.grid.affine, code=1)
    image.set_sform(run.grid.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    content = image.to_bytes()
    path = folder / run.path
    # A time stamp in the gzip header would make every copy of the dataset differ.
    write_bytes(path, gzip.compress(content, 1, mtime=0) if run.extension.endswith(".gz") else content)
    _write_json(path.with_name(path.name.removesuffix(run.extension) + ".json"), sidecar(run))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    # `write_json` would put a list of numbers on one line, and a version of the phantom keeps its bytes.
    write_text(path, json.dumps(content, indent=2) + "\n")
