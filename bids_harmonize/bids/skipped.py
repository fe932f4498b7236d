"""Participants without a run, and images that look like scans and are none by BIDS: none is lost silently."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bids_harmonize.bids.filters import Filters, labels
from bids_harmonize.bids.index import participants
from bids_harmonize.bids.participants import read_participants
from bids_harmonize.bids.run import DEFAULT_MODALITIES, MODALITY_OF_SUFFIX, Run, natural_key, parse_name
from bids_harmonize.errors import BadData, escape_unprintable

FILTERED = "none of its images match the filters"
# Names that somebody meant for T1w or T2w scans, whatever else is wrong with them.
_LOOKS_LIKE_A_SCAN = re.compile(r"[^.].*T[12]w(_\w*)?\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A participant without a run, or an image that is none, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return escape_unprintable(f"{self.name} skipped: {self.reason}")


def find_skipped(dataset: Path, filters: Filters, runs: Sequence[Run]) -> list[Skipped]:
    """Name participants who have no run among those selected, and images that cannot be read as BIDS names.

    Who was excluded, or is none of those asked for, is not skipped.

    Parameters
    ----------
    dataset
        The dataset's folder.
    filters
        What was asked for.
    runs
        What was selected.
    """
    requested, excluded = ({*labels(names, "sub")} for names in (filters.participants, filters.excluded))
    known = dict.fromkeys([*_folders(dataset), *_in_table(dataset)])
    wanted = [label for label in known if label in (requested or known) and label not in excluded]
    having = {run.relative.parts[0].removeprefix("sub-") for run in runs}
    found: list[Skipped] = []
    for label in sorted(wanted, key=lambda label: natural_key(PurePosixPath(label))):
        unreadable = list(_unreadable(dataset, label))
        found += unreadable
        if label not in having and not unreadable:
            found.append(Skipped(name=f"sub-{label}", reason=_reason(dataset, label, filters.modalities)))
    return found


def _folders(dataset: Path) -> list[str]:
    """Labels of the participants' folders, links to nowhere included."""
    dangling = [
        path.name.removeprefix("sub-")
        for path in dataset.glob("sub-*")
        if path.is_symlink() and not path.exists()
    ]
    return [*participants(dataset), *dangling]


def _in_table(dataset: Path) -> list[str]:
    try:
        named = read_participants(dataset / "participants.tsv")
        return [participant.removeprefix("sub-") for participant in named]
    except (BadData, OSError):
        # Whoever needs the table says what is wrong with it.
        return []


def _unreadable(dataset: Path, label: str) -> Iterator[Skipped]:
    if "/" in label:
        # The table of participants may hold anything, and no label of it leads out of the dataset.
        return
    folder = dataset / f"sub-{label}"
    for path in sorted([*folder.glob("anat/*"), *folder.glob("ses-*/anat/*")]):
        if _LOOKS_LIKE_A_SCAN.fullmatch(path.name) and not _is_scan(path.name):
            yield Skipped(name=str(path.relative_to(dataset)), reason=_fault(path.name))


def _is_scan(name: str, suffixes: Collection[str] = MODALITY_OF_SUFFIX) -> bool:
    parsed = parse_name(name)
    return parsed is not None and parsed[1] in suffixes and parsed[2] in (".nii", ".nii.gz")


def _fault(name: str) -> str:
    """What is wrong with a name, as far as that can be told."""
    stem = re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE)
    *entities, suffix = stem.split("_")
    if name != stem + (".nii.gz" if name.lower().endswith(".gz") else ".nii"):
        return "its ending must be .nii or .nii.gz in lower case; rename it"
    if suffix not in MODALITY_OF_SUFFIX:
        return f"its suffix {suffix} is none that BIDS has, such as T1w or T2w; rename it"
    wrong = [entity for entity in entities if not re.fullmatch("[A-Za-z]+-[A-Za-z0-9+]+", entity)]
    where = f"{wrong[0]!r} in its name" if wrong else "its name"
    return f"{where} is no entity of BIDS, such as sub-01 or run-2; rename it"


def _reason(dataset: Path, label: str, suffixes: Sequence[str]) -> str:
    folder = dataset / f"sub-{label}"
    if "/" not in label and folder.is_symlink() and not folder.exists():
        return "its folder is a link to nowhere; fetch or restore it"
    if "/" in label or not folder.is_dir():
        return "participants.tsv names this participant, but there is no such folder"
    try:
        if not any(folder.iterdir()):
            return "its folder is empty; fetch its content"
    except OSError as error:
        return f"its folder cannot be read ({error.strerror}); correct its rights"
    scans = (*folder.glob("anat/sub-*.nii*"), *folder.glob("ses-*/anat/sub-*.nii*"))
    if any(_is_scan(path.name, {*DEFAULT_MODALITIES, *suffixes}) for path in scans):
        return FILTERED
    return f"it has no {' or '.join(suffixes)} image in anat"
