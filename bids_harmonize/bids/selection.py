"""Select the runs to harmonize; the face of all that reads a BIDS dataset's structure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bids_harmonize.bids.filters import Filters, accepts, labels
from bids_harmonize.bids.jsonfile import read_object
from bids_harmonize.bids.layout import Inventory, images, inventory, participants
from bids_harmonize.bids.runs import Run, conflicts, natural_key
from bids_harmonize.errors import BadData, InvalidBIDS, NoInput, NothingSelected

__all__ = ["Filters", "Run", "check_dataset", "conflicts", "select_runs"]


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
    there = participants(dataset)
    _require_all(dataset, "participant", labels(filters.participants, "sub"), there)
    chosen = labels(filters.participants, "sub") or there
    wanted = [label for label in chosen if label not in labels(filters.excluded, "sub")]
    found = images(dataset, wanted, database_dir) if wanted else []
    if filters.sessions:
        _require_all(dataset, "session", labels(filters.sessions, "ses"), _sessions(dataset, wanted))
    runs = [run for run in found if accepts(filters, run)]
    if not runs:
        raise NothingSelected(
            f"No run matches the filters: {_describe(dataset, inventory(dataset), filters)}."
        )
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
        raise NoInput(f"{dataset} is not a folder." if dataset.exists() else f"{dataset} does not exist.")
    problems = _description_problems(dataset / "dataset_description.json")
    if not participants(dataset):
        problems.append(f"{dataset} has no sub-* folder.")
    if problems and not skip:
        raise InvalidBIDS(f"Not a valid BIDS dataset: {' '.join(problems)}")
    return ["Validation of the input was skipped.", *problems] if skip else []


def _description_problems(path: Path) -> list[str]:
    if not path.exists() and not path.is_symlink():
        return [f"{path} is missing."]
    try:
        description = read_object(path)
    except BadData as error:
        return [str(error)]
    required = ("Name", "BIDSVersion")
    return [f"{path} has no {key}." for key in required if not isinstance(description.get(key), str)]


def _require_all(dataset: Path, kind: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    missing = [label for label in wanted if label not in there]
    if missing:
        named = f"{kind}{_s(missing)} {', '.join(missing)}"
        raise NothingSelected(f"{dataset} does not have the {named}; it has {_listed(there, kind)}.")


def _sessions(dataset: Path, wanted: Sequence[str]) -> list[str]:
    found = [
        path.name.removeprefix("ses-") for label in wanted for path in dataset.glob(f"sub-{label}/ses-*")
    ]
    return sorted(set(found))


def _describe(dataset: Path, there: Inventory, filters: Filters) -> str:
    parts = [f"{dataset} has {_listed(there.participants, 'participant')}"]
    if there.sessions:
        parts.append(_listed(there.sessions, "session"))
    parts.append(", ".join(f"{suffix} in {there.with_suffix[suffix]}" for suffix in ("T1w", "T2w")))
    legacy = there.with_suffix["inplaneT2"]
    if legacy and "inplaneT2" not in filters.modalities:
        parts.append(f"inplaneT2 in {legacy}, taken only with --modalities inplaneT2")
    elif legacy:
        parts.append(f"inplaneT2 in {legacy}")
    return ", ".join(parts)


def _listed(there: Sequence[str], kind: str, most: int = 5) -> str:
    if not there:
        return f"no {kind}s"
    shown = [*there[:most], "..."] if len(there) > most else there
    return f"{len(there)} {kind}{_s(there)} ({', '.join(shown)})"


def _s(there: Sequence[str]) -> str:
    return "" if len(there) == 1 else "s"
