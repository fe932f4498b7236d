"""Select the runs to harmonize, and check that there is a dataset to select from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from bids_harmonize.bids.filters import Filters, accepts, labels, sessions_of
from bids_harmonize.bids.index import images, participants
from bids_harmonize.bids.run import DEFAULT_MODALITIES, MODALITY_OF_SUFFIX, Run, natural_key
from bids_harmonize.errors import BadData, InvalidBIDS, NoInput, NothingSelected
from bids_harmonize.files.json_object import read_object

# A message lists at most this many labels and counts the rest.
MAX_NAMED = 5


def select_runs(dataset: Path, filters: Filters, database_dir: Path | None = None) -> list[Run]:
    """List the runs that the filters want, in natural order of their paths.

    Only ``sub-*/anat`` and ``sub-*/ses-*/anat`` are looked at; ``part-phase``, ``part-real`` and
    ``part-imag`` are left out. Links whose content was not fetched are listed like any other run.

    Parameters
    ----------
    dataset
        The dataset's folder; links in it are kept as they are.
    filters
        What to select.
    database_dir
        A pybids index to open, or to make; None leaves none behind.

    Raises
    ------
    NothingSelected
        If a named participant or session does not exist, or no run is left; the message says what there is.
    NoInput, InvalidBIDS, UsageError, CannotCreate
        If the dataset or the index cannot be read, or the index cannot be made.
    """
    dataset = dataset.absolute()
    existing = participants(dataset)
    requested, excluded = labels(filters.participants, "sub"), {*labels(filters.excluded, "sub")}
    _require_all(dataset, "participant", requested, existing)
    chosen = [label for label in requested or existing if label not in excluded]
    found = images(dataset, chosen, database_dir) if chosen else []
    if filters.sessions:
        _require_all(dataset, "session", labels(filters.sessions, "ses"), _sessions(found))
    runs = [run for run in found if accepts(filters, run)]
    if not runs:
        content = _describe(existing, chosen, found, filters)
        raise NothingSelected(f"no run matches the filters: {dataset} has {content}")
    return sorted(runs, key=lambda run: natural_key(run.relative))


def check_dataset(dataset: Path, skip: bool) -> list[str]:
    """Check that a folder is a BIDS dataset that can be worked on.

    Parameters
    ----------
    dataset
        The folder.
    skip
        Whether to go on with a folder that is not valid; what is wrong is then told as a warning.

    Returns
    -------
    list of str
        Warnings, one sentence each.

    Raises
    ------
    NoInput
        If there is no such folder, or it cannot be read; also with ``skip``.
    InvalidBIDS
        If it is not valid, and this was not to be skipped.
    """
    if not dataset.is_dir():
        raise NoInput(f"{dataset} is not a folder" if dataset.exists() else f"{dataset} does not exist")
    problems = _description_problems(dataset / "dataset_description.json")
    if not participants(dataset):
        problems.append(f"{dataset} has no sub-* folder")
    if problems and not skip:
        raise InvalidBIDS(f"not a valid BIDS dataset: {'; '.join(problems)}")
    return ["validation of the input was skipped", *problems] if skip else []


def _description_problems(path: Path) -> list[str]:
    if not path.exists() and not path.is_symlink():
        return [f"{path} is missing"]
    try:
        description = read_object(path)
    except (BadData, NoInput) as error:
        return [str(error)]
    required = ("Name", "BIDSVersion")
    return [f"{path} has no {key}" for key in required if not isinstance(description.get(key), str)]


def _require_all(dataset: Path, kind: str, wanted: Sequence[str], existing: Sequence[str]) -> None:
    missing = [label for label in wanted if label not in existing]
    if missing:
        named = f"{kind}{_plural(missing)} {', '.join(missing)}"
        raise NothingSelected(f"{dataset} has no scans of the {named}; it has {_listed(existing, kind)}")


def _sessions(runs: Sequence[Run]) -> list[str]:
    found = {label for run in runs for label in sessions_of(run)}
    return sorted(found, key=lambda label: natural_key(PurePosixPath(label)))


def _describe(existing: Sequence[str], chosen: Sequence[str], found: Sequence[Run], filters: Filters) -> str:
    """What there is to select from: participants, and what the images of those that were chosen are."""
    parts = [_listed(existing, "participant")]
    if not chosen:
        parts.append("all of whom are left out")
    elif len(chosen) < len(existing):
        parts.append(f"of whom {len(chosen)} {'was' if len(chosen) == 1 else 'were'} looked at")
    if sessions := _sessions(found):
        parts.append(_listed(sessions, "session"))
    for suffix in MODALITY_OF_SUFFIX:
        having = len({run.subject for run in found if run.suffix == suffix})
        asked_for = suffix in {*DEFAULT_MODALITIES, *filters.modalities}
        if having or asked_for:
            only = "" if asked_for else f", taken only with --modalities {suffix}"
            parts.append(f"{suffix} in {having}{only}")
    return ", ".join(parts)


def _listed(labels: Sequence[str], kind: str) -> str:
    if not labels:
        return f"no {kind}s"
    shown = [*labels[:MAX_NAMED], "..."] if len(labels) > MAX_NAMED else labels
    return f"{len(labels)} {kind}{_plural(labels)} ({', '.join(shown)})"


def _plural(labels: Sequence[str]) -> str:
    return "" if len(labels) == 1 else "s"
