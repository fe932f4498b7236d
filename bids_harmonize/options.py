"""What one call of the program is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one call of the program is asked to do.

    Attributes
    ----------
    bids_dir, output_dir : Path
        Input dataset and derivatives folder: absolute, symbolic links kept.
    level : str
        ``participant``, ``group`` or ``train``.
    participants, excluded, sessions : tuple of str
        Labels without ``sub-`` and ``ses-``; empty means no filter.
    bids_filters : Mapping
        Content of the filter file: suffix in lower case to a mapping of entity to value.
    modalities : tuple of str
        Suffixes to harmonize.
    skip_validation : bool
        Leave out the check that the input is valid BIDS.
    database_dir : Path or None
        A PyBIDS database to open.
    n_cpus, omp_nthreads : int
        CPUs in all, and threads for one run.
    mem_bytes : int or None
        Upper bound on memory, in bytes; None means no bound.
    work_dir : Path or None
        Not needed; accepted as in other apps, and refused in the input.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    dry_run, force, stop_on_first_crash, reports_only, save_transform : bool
        The switches of the same names.
    seed : int
        Seed of every random number.
    out_of_distribution : str
        ``harmonize``, ``skip`` or ``fail``: what to do with scans unlike what the model is meant for.
    models : tuple of str
        Names of bundled models, or absolute paths of weight files; empty means the bundled ones.
    site_column : str or None
        Column of participants.tsv that tells the site (level ``group``); None means the usual names.
    reference_size : int
        Number of scans in the reference group (level ``train``).
    steps : int or None
        Number of training steps (level ``train``); None means the trainer's own.
    label_maps : Path or None
        Folder of label maps to simulate acquisitions from (level ``train``).
    verbosity : int
        How often ``-v`` was given.
    command : tuple of str
        The command line as typed.
    """

    bids_dir: Path
    output_dir: Path
    level: str
    participants: tuple[str, ...]
    excluded: tuple[str, ...]
    sessions: tuple[str, ...]
    bids_filters: Mapping[str, Mapping[str, Any]]
    modalities: tuple[str, ...]
    skip_validation: bool
    database_dir: Path | None
    n_cpus: int
    omp_nthreads: int
    mem_bytes: int | None
    work_dir: Path | None
    device: str
    dry_run: bool
    force: bool
    stop_on_first_crash: bool
    seed: int
    reports_only: bool
    save_transform: bool
    out_of_distribution: str
    models: tuple[str, ...]
    site_column: str | None
    reference_size: int
    steps: int | None
    label_maps: Path | None
    verbosity: int
    command: tuple[str, ...]
