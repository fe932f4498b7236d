"""What one call of a command is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class ClusterKind(StrEnum):
    """A kind of Dask cluster that can be started for a run."""

    LOCAL = "local"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """How a scan is harmonized, whichever command was called.

    Attributes
    ----------
    models : tuple of str
        Names of bundled models, or absolute paths of weight files; empty means the bundled ones.
    out_of_distribution : str
        ``harmonize``, ``skip`` or ``fail``: what to do with scans that look out of distribution.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    omp_nthreads : int or None
        Threads for one scan; None means its share of the CPUs.
    save_transform, force : bool
        The switches of the same names.
    mem_bytes : int or None
        Upper bound on memory, in bytes; None means no bound.
    seed : int
        Seed of every random number.
    verbosity : int
        Number of ``-v``, or -1 for ``-q``.
    command : tuple of str
        The command line as typed.
    pool : Path or None
        A pool that was formed before, or a folder of pools: scans share its edit.
    """

    models: tuple[str, ...]
    out_of_distribution: str
    device: str
    omp_nthreads: int | None
    save_transform: bool
    force: bool
    command: tuple[str, ...]
    mem_bytes: int | None = None
    seed: int = 0
    verbosity: int = 0
    pool: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Options(ScanOptions):
    """What ``bids-harmonize`` is asked to do.

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
        Whether to leave out the check that the input is valid BIDS.
    database_dir : Path or None
        A PyBIDS database to open.
    n_cpus : int
        CPUs in all.
    scheduler : str or None
        Address of a Dask scheduler, or the `ClusterKind` to start; None means this machine, without Dask.
    work_dir : Path or None
        A working folder, which is not needed; accepted as in other apps, and refused in the input.
    dry_run, stop_on_first_crash, reports_only : bool
        The switches of the same names.
    pool_by : str or None
        ``protocol``, ``site``, ``session`` or a column: what scans that share an edit have in common; None
        means that each is harmonized by itself.
    site_column : str or None
        Column of participants.tsv with the site (group level); None means the usual names.
    reference_size : int
        Number of scans in the reference group (train level).
    steps : int or None
        Number of training steps (train level); None means the trainer's own.
    label_maps : Path or None
        Folder of label maps to simulate acquisitions from (train level).
    echo_times : sequence of int or None
        Echo times from which, and to which, a T2w reference group is brought (train level), ms.
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
    scheduler: str | None
    work_dir: Path | None
    dry_run: bool
    stop_on_first_crash: bool
    reports_only: bool
    pool_by: str | None
    site_column: str | None
    reference_size: int
    steps: int | None
    label_maps: Path | None
    echo_times: Sequence[int] | None


@dataclass(frozen=True, kw_only=True)
class ImageOptions(ScanOptions):
    """What ``bids-harmonize-image`` is asked to do.

    Attributes
    ----------
    source, output : Path
        The image to read and the one to write: absolute, symbolic links kept.
    modality : str or None
        ``T1w`` or ``T2w``; None means that of the model.
    """

    source: Path
    output: Path
    modality: str | None
