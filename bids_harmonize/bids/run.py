"""One scan of a BIDS dataset: its file, its entities, and what its name contradicts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

# What BIDS has under `anat` that shows contrast, and the modality of models for it. Left out are masks and
# quantitative maps, whose values are physical and must stay; UNIT1, though listed with maps, has no unit.
_CONTRASTS = ("PDw", "PD", "PDT2", "T2starw", "T2star", "FLAIR", "FLASH", "angio", "UNIT1")
_COLLECTIONS = ("MEGRE", "MESE", "VFA", "IRT1", "MP2RAGE", "MPM", "MTS", "MTR")
MODALITY_OF_SUFFIX = {
    "T1w": "T1w",
    "T2w": "T2w",
    "inplaneT1": "T1w",
    "inplaneT2": "T2w",
    **{suffix: suffix for suffix in (*_CONTRASTS, *_COLLECTIONS)},
}
MODALITIES = tuple(dict.fromkeys(MODALITY_OF_SUFFIX.values()))
# What is harmonized where nothing else is asked for.
DEFAULT_MODALITIES = ("T1w", "T2w")
# Labels of the entity `desc` in the names of harmonized images, and of those that were passed through.
HARMONIZED, UNHARMONIZED = "harmonized", "unharmonized"

# Labels with other characters than letters and digits are not BIDS, but they are common and unambiguous.
_ENTITY = r"[a-zA-Z0-9]+-[^_/]+"
_NAME = re.compile(rf"(?P<entities>{_ENTITY}(?:_{_ENTITY})*)_(?P<suffix>[a-zA-Z0-9]+)(?P<ext>\..+)")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One scan.

    Parameters
    ----------
    dataset
        The dataset's folder, absolute, symbolic links not followed.
    path
        The image, absolute, symbolic links not followed: it may be a link whose content was not fetched.
    entities
        Short entity names and their labels, spelled and ordered as in the file name.
    suffix
        One of `MODALITY_OF_SUFFIX`.
    modality
        What a model must be for to serve the scan.
    """

    dataset: Path
    path: Path
    entities: Mapping[str, str] = field(hash=False)
    suffix: str
    modality: str

    @property
    def subject(self) -> str:
        """The participant's label, without ``sub-``."""
        return self.entities["sub"]

    @property
    def session(self) -> str | None:
        """The session's label, without ``ses-``; None where the name has no session."""
        return self.entities.get("ses")

    @cached_property
    def relative(self) -> PurePosixPath:
        """The image's path relative to the dataset."""
        return PurePosixPath(self.path.relative_to(self.dataset).as_posix())

    @property
    def datatype(self) -> str:
        """The folder that holds the image, ``anat``."""
        return self.path.parent.name


def parse_name(name: str) -> tuple[dict[str, str], str, str] | None:
    """Split a BIDS file name into entities, suffix and extension.

    pybids' ``parse_file_entities`` gives no order, knows no other entities than its own, and cuts labels at
    the first character that is not BIDS; outputs keep all of a name.

    Parameters
    ----------
    name
        A file name without folders, such as ``sub-01_run-02_T1w.nii.gz``.

    Returns
    -------
    tuple or None
        Entities in the order of the name, the suffix, and the extension with its dot; None where the name is
        no such chain, or repeats an entity.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    pairs = [chunk.split("-", 1) for chunk in match["entities"].split("_")]
    entities = {key: label for key, label in pairs}
    return (entities, match["suffix"], match["ext"]) if len(entities) == len(pairs) else None


def label_in_name(name: str, entity: str) -> str | None:
    """The label of an entity in a file name, which need not be BIDS otherwise; None where it has none."""
    match = re.search(rf"(?:^|_){entity}-([^_.]+)", name)
    return match[1] if match else None


def output_stem(run: Run, desc: str = HARMONIZED) -> str:
    """Name of a run's outputs without extension: every entity of the source, then ``desc``."""
    kept = [f"{key}-{label}" for key, label in run.entities.items() if key != "desc"]
    return "_".join([*kept, f"desc-{desc}", run.suffix])


def natural_key(path: PurePosixPath) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key that puts ``sub-2`` before ``sub-10``, and folders before what lies behind them."""
    chunks = re.findall(r"[0-9]+|[^0-9]+", str(path))
    return tuple((0, int(c), "") if c.isdecimal() else (1, 0, c) for c in chunks), str(path)


def conflicts(runs: Sequence[Run]) -> dict[Path, str]:
    """Find runs that cannot be told apart, or whose name contradicts their folder.

    Two runs conflict where both would write the same output file, on any file system: ``x.nii`` beside
    ``x.nii.gz``, or labels that differ only in upper and lower case.

    Parameters
    ----------
    runs
        All runs that were selected.

    Returns
    -------
    dict
        One sentence for the path of each conflicting run; runs without conflict are absent.
    """
    groups: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[output_stem(run).casefold()].append(run)
    found = {run.path: problem for run in runs if (problem := _misfiled(run))}
    for group in groups.values():
        found |= {run.path: _same_output(run, group) for run in group if len(group) > 1}
    return found


def _same_output(run: Run, group: Sequence[Run]) -> str:
    others = " and ".join(str(other.relative) for other in group if other is not run)
    return f"{run.relative} has the same labels as {others}, and both would write the same file; keep one"


def _misfiled(run: Run) -> str | None:
    if not str(run.relative).isprintable():
        return f"{run.relative} has characters in its name that cannot be printed; rename it"
    folders = dict(part.split("-", 1) for part in run.relative.parts[:-2])
    named = {key: run.entities[key] for key in ("sub", "ses") if key in run.entities}
    if folders == named:
        return None
    name, folder = "_".join(f"{k}-{v}" for k, v in named.items()), run.relative.parent
    return f"{run.relative} names {name} but lies in {folder}; rename or move it"
