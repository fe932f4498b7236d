"""Where outputs lie, what they are called, and which folders must never be written to.

Names are put together here and not by the path patterns of pybids: those of its derivatives have no ``run``,
``echo``, ``part`` or ``chunk``, so that two scans of one session would become one file; and every worker
would import pybids for them (0.5 s, 24 MB).
"""

from __future__ import annotations

import os
from pathlib import Path

from bids_harmonize.bids.run import HARMONIZED, UNHARMONIZED, Run, output_stem
from bids_harmonize.errors import CannotCreate, UsageError
from bids_harmonize.files.atomic import locked_temp_file, remove_stale_temp_files

# What single images end in; those of a dataset are NIfTI.
IMAGE_ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh")


def output_path(output_dir: Path, run: Run) -> Path:
    """The harmonized image of a run.

    All entities of the source are kept in their order, ``desc-harmonized`` comes last and replaces another
    ``desc``, the suffix is the source's (``inplaneT2`` too), the format is always ``.nii.gz``.
    """
    return _image_path(output_dir, run, HARMONIZED)


def unharmonized_path(output_dir: Path, run: Run) -> Path:
    """The image of a run that is passed through: as `output_path`, but ``desc-unharmonized``."""
    return _image_path(output_dir, run, UNHARMONIZED)


def image_stem(name: str) -> str | None:
    """The name of an image file without its ending; None where that is none of `IMAGE_ENDINGS`."""
    return next((name[: -len(end)] for end in IMAGE_ENDINGS if name.endswith(end)), None)


def sidecar_path(image: Path) -> Path:
    """The JSON file beside an image."""
    return _beside(image, ".json")


def report_path(output_dir: Path, label: str) -> Path:
    """Where the page about a participant lies, whose label this is."""
    return output_dir / f"sub-{label}.html"


def transform_path(output: Path) -> Path:
    """The file of tone curves beside a harmonized image; `.bidsignore` hides it from validators."""
    return _beside(output, "_curves.safetensors")


def prepare_output(output_dir: Path, dataset: Path, *, work_dir: Path | None = None) -> None:
    """Check the output and work folders, then make the output folder and try it.

    What killed processes left half-written in it, and in its logs, is removed.

    Raises
    ------
    UsageError
        As `check_locations` does.
    CannotCreate, InputOutputError
        If the output folder cannot be made or written.
    """
    check_locations(output_dir, dataset, work_dir=work_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with locked_temp_file(output_dir / "probe"):
            pass
    except OSError as error:
        raise CannotCreate(f"{output_dir} cannot be created or written: {error.strerror}") from error
    for folder in (output_dir, output_dir / "logs"):
        remove_stale_temp_files(folder)


def check_locations(
    output_dir: Path, dataset: Path, *, work_dir: Path | None = None, database_dir: Path | None = None
) -> None:
    """Refuse output and work folders that would change the input; nothing is written.

    The output may lie in ``<dataset>/derivatives/NAME``, or contain the dataset, but not be it or lie
    elsewhere in it; the work folder and an index yet to be made may not lie in the dataset at all.

    Raises
    ------
    UsageError
        If a folder is refused.
    """
    inside = inside_dataset(output_dir, dataset)
    if inside == ():
        raise UsageError(f"the output folder {output_dir} is the input dataset; name another")
    if inside and (inside[0] != "derivatives" or len(inside) == 1):
        where = dataset / "derivatives" / "bids-harmonize"
        raise UsageError(f"the output folder {output_dir} lies in the input; use {where} or one outside")
    if work_dir is not None and inside_dataset(work_dir, dataset) is not None:
        raise UsageError(f"the work folder {work_dir} lies in the input dataset; name one outside")
    new_index = database_dir is not None and not (database_dir / "layout_index.sqlite").exists()
    if database_dir is not None and new_index and inside_dataset(database_dir, dataset) is not None:
        raise UsageError(f"the index {database_dir} would lie in the input dataset; name a folder outside")


def check_inside(folder: Path, output_dir: Path) -> None:
    """Refuse a folder of the outputs that a link leads away from them: it could be one of the input.

    Raises
    ------
    CannotCreate
        If the folder does not lie in the output folder.
    """
    if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(output_dir)):
        raise CannotCreate(f"{folder} leads out of the output folder {output_dir}; remove the link")


def inside_dataset(path: Path, dataset: Path) -> tuple[str, ...] | None:
    """The folders that lead from a dataset to a path in it, none for the dataset itself; None if outside.

    Links are followed for the comparison only, and folders are compared by identity, so that a second name of
    the dataset (a bind mount, another spelling in upper and lower case) is recognized.
    """
    real = Path(os.path.realpath(path))
    for folder in (real, *real.parents):
        if folder == Path(os.path.realpath(dataset)) or _same(folder, dataset):
            return real.relative_to(folder).parts
    return None


def _image_path(output_dir: Path, run: Run, desc: str) -> Path:
    folders = [f"{key}-{run.entities[key]}" for key in ("sub", "ses") if key in run.entities]
    return output_dir.joinpath(*folders, run.datatype, f"{output_stem(run, desc)}.nii.gz")


def _same(folder: Path, dataset: Path) -> bool:
    try:
        return os.path.samefile(folder, dataset)
    except OSError:
        return False


def _beside(image: Path, ending: str) -> Path:
    return image.with_name((image_stem(image.name) or image.name) + ending)
