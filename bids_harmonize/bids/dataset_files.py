"""The files that describe the output dataset as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bids_harmonize.bids.output_paths import inside_dataset
from bids_harmonize.errors import BadData, InputOutputError, NoInput, UsageError
from bids_harmonize.files.atomic import as_json, update_text, write_text
from bids_harmonize.files.json_object import read_object
from bids_harmonize.version import BIDS_VERSION

NAME = "bids-harmonize"
CODE_URL = "https://github.com/bids-apps/harmonize"
IMAGE = "bids/harmonize"
DATASET_FILES = ("dataset_description.json", "README", ".bidsignore")

# The validator matches a folder's name only without a trailing slash.
_IGNORED = ("*.html", "figures", "group_*", "pools", "*_curves.safetensors")

_README = """\
Harmonized MRI

Each T1w or T2w scan of the source dataset that was selected is here with the intensities that it would have
on the scanners of one reference group (bids-harmonize, {url}).

Only intensities differ from the source: anatomy, voxel grid, orientation and units are the same. The values
are on the scale of the reference group, which the model card defines: for models of the head, the median of
the reference group's white matter is 1000. The values are 32-bit floating point and never negative; the
background stays background.

Files: sub-*/[ses-*/]anat/*_desc-harmonized_*.nii.gz are the images. The JSON file beside each says how it was
made (BidsHarmonize) and from what (Sources). sub-*.html shows what was done to the scans of a person, with
the figures in sub-*/figures. logs/ holds the commands that were run, and reports of scans that failed.
"""


def container(environment: Mapping[str, str], *, version: str) -> dict[str, str] | None:
    """The container that the program runs in, as ``GeneratedBy`` describes it.

    Parameters
    ----------
    environment
        Environment variables. Apptainer sets its own; ``IS_DOCKER`` is set by the Dockerfile of this project,
        and ``BIDS_HARMONIZE_CONTAINER`` may name the image and its tag.
    version
        Version of this program, the tag of an image that has no name.

    Returns
    -------
    dict or None
        Type and tag; None outside containers.
    """
    tag = environment.get("BIDS_HARMONIZE_CONTAINER") or f"{IMAGE}:{version}"
    if environment.get("APPTAINER_NAME") or environment.get("SINGULARITY_NAME"):
        return {"Type": "apptainer", "Tag": tag}
    return {"Type": "docker", "Tag": tag} if environment.get("IS_DOCKER") else None


def write_dataset_files(
    output_dir: Path, dataset: Path, *, version: str, container: Mapping[str, str] | None = None
) -> None:
    """Write ``dataset_description.json``, ``README`` and ``.bidsignore`` where missing or out of date.

    Many processes may do this at once. A README that is there is kept, and so are lines of `.bidsignore`.

    Parameters
    ----------
    output_dir, dataset
        Folders of the outputs and of the input.
    version
        Version of this program.
    container
        The result of `container`.

    Raises
    ------
    UsageError
        If the folder belongs to another program.
    CannotCreate, InputOutputError
        If a file cannot be written.
    """
    require_own_dataset(output_dir)
    description = dataset_description(output_dir, dataset, version=version, container=container)
    if not any(output_dir.glob("README*")):
        write_text(output_dir / "README", _README.format(url=CODE_URL))
    update_text(output_dir / ".bidsignore", _bidsignore(output_dir / ".bidsignore"))
    update_text(output_dir / "dataset_description.json", as_json(description))


def require_own_dataset(output_dir: Path) -> None:
    """Raise `UsageError` if the folder holds a dataset that this program did not make; nothing is written."""
    path = output_dir / "dataset_description.json"
    if not os.path.lexists(path):
        return
    try:
        generators = read_object(path).get("GeneratedBy")
    except (BadData, NoInput) as error:
        raise UsageError(f"the output folder may be another program's: {error}") from error
    programs = generators if isinstance(generators, list) else []
    if not any(isinstance(program, dict) and program.get("Name") == NAME for program in programs):
        raise UsageError(f"{path} was not written by {NAME}; name another output folder")


def require_output_exists(output_dir: Path) -> None:
    """Raise `InputOutputError` if the folder vanished after `write_dataset_files` wrote into it.

    The writers of files make the folders that they need, and would not notice.
    """
    path = output_dir / "dataset_description.json"
    if not path.is_file():
        raise InputOutputError(
            f"{path} is gone; if the output folder was removed or unmounted, restore it and start again"
        )


@contextmanager
def output_must_survive(output_dir: Path) -> Iterator[None]:
    """Raise `InputOutputError` on exit if the output folder held results and disappeared meanwhile."""
    described = (output_dir / "dataset_description.json").is_file()
    yield
    if described:
        require_output_exists(output_dir)


def dataset_description(
    output_dir: Path, dataset: Path, *, version: str, container: Mapping[str, str] | None
) -> dict[str, Any]:
    """The content of ``dataset_description.json``; title, authors, licence and DOI come from the source's."""
    source = _source_description(dataset)
    title = source.get("Name")
    described: dict[str, Any] = {
        "Name": f"Harmonized MRI of {title}" if _filled(title) else "Harmonized MRI",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
    }
    if _filled(source.get("License")):
        described["License"] = source["License"]
    return described | {
        "Authors": _authors(source),
        "GeneratedBy": _generated_by(output_dir, dataset, version, container),
        "SourceDatasets": [_source(dataset, source)],
        "DatasetLinks": {"raw": _link(output_dir, dataset)},
    }


def _generated_by(
    output_dir: Path, dataset: Path, version: str, container: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    own: dict[str, Any] = {"Name": NAME, "Version": version, "CodeURL": CODE_URL}
    if container is not None:
        own["Container"] = dict(container)
    folder = Path(os.path.realpath(output_dir)).name
    if inside_dataset(output_dir, dataset) is None or NAME in folder:
        return [own]
    # BIDS: in raw/derivatives/FOLDER, the first name must be part of FOLDER, which the user chose otherwise.
    return [{"Name": folder, "Version": version, "Description": f"This folder, written by {NAME}."}, own]


def _link(output_dir: Path, dataset: Path) -> str:
    inside = inside_dataset(output_dir, dataset)
    return dataset.absolute().as_uri() if inside is None else "/".join([".."] * len(inside))


def _source(dataset: Path, source: Mapping[str, Any]) -> dict[str, str]:
    doi = source.get("DatasetDOI")
    return {"URL": dataset.absolute().as_uri()} | ({"DOI": str(doi)} if _filled(doi) else {})


def _authors(source: Mapping[str, Any]) -> list[str]:
    listed = source.get("Authors")
    authors = [author for author in listed if _filled(author)] if isinstance(listed, list) else []
    return [*(authors or ["Authors of the source dataset"]), f"{NAME} developers"]


def _source_description(dataset: Path) -> dict[str, Any]:
    try:
        return read_object(dataset / "dataset_description.json")
    except (BadData, NoInput):
        # A warning was logged, and --skip-bids-validation was given.
        return {}


def _filled(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _bidsignore(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    return "\n".join([*lines, *(line for line in _IGNORED if line not in lines)]) + "\n"
