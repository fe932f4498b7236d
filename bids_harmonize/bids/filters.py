"""Which runs a user wants: participants, sessions, modalities, and the filter file of the NiPreps apps.

Runs are matched by their file names here and not by pybids' ``get``, which reads a label up to the first
character that BIDS does not allow: to pybids ``acq-my-a`` and ``acq-my-b`` are the same. Where names are
valid, both select the same runs, as a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_harmonize.bids.run import DEFAULT_MODALITIES, MODALITIES, Run
from bids_harmonize.errors import BadData, NoInput, UsageError
from bids_harmonize.files.json_object import read_object

# The entities of BIDS by their long names, with the key that file names hold. A test compares them with the
# BIDS schema and with pybids, whose own table lacks some (`split`) and shortens others (`inv`).
ENTITY_KEYS = {
    "subject": "sub",
    "template": "tpl",
    "session": "ses",
    "cohort": "cohort",
    "sample": "sample",
    "task": "task",
    "tracksys": "tracksys",
    "acquisition": "acq",
    "nucleus": "nuc",
    "volume": "voi",
    "ceagent": "ce",
    "stain": "stain",
    "staining": "stain",
    "tracer": "trc",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "modality": "mod",
    "echo": "echo",
    "flip": "flip",
    "inversion": "inv",
    "mtransfer": "mt",
    "part": "part",
    "processing": "proc",
    "hemisphere": "hemi",
    "space": "space",
    "split": "split",
    "recording": "recording",
    "chunk": "chunk",
    "atlas": "atlas",
    "scale": "scale",
    "segmentation": "seg",
    "resolution": "res",
    "density": "den",
    "label": "label",
    "description": "desc",
}
# The labels of these are numbers, so that 1 and 01 are the same.
INDEX_KEYS = frozenset({"run", "echo", "flip", "inv", "split", "chunk"})
_KEYS = frozenset(ENTITY_KEYS.values())


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What to select.

    Parameters
    ----------
    participants, excluded, sessions
        Labels, with or without ``sub-`` and ``ses-``. Empty: all participants, none excluded, all sessions.
        An excluded label that the dataset lacks is no error.
    modalities
        Suffixes, of `MODALITY_OF_SUFFIX`.
    bids_filters
        The content of a filter file as fMRIPrep takes it: per modality (``t1w``, ``flair``, in any case;
        other keys are ignored) the wanted value of entities, by long or short name. None: the entity is
        absent; ``"*"``: it has any label; else a label, or a list of these.

    Raises
    ------
    UsageError
        If a filter names an unknown entity, or wants something that is no label.
    """

    participants: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    modalities: tuple[str, ...] = DEFAULT_MODALITIES
    bids_filters: Mapping[str, Mapping[str, object]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse a filter file that could not be obeyed."""
        for modality in MODALITIES:
            _modality_filter(self, modality)


def read_filter_file(path: Path) -> dict[str, Any]:
    """Read a filter file.

    Raises
    ------
    NoInput
        If the file does not exist or cannot be read.
    UsageError
        If its content is not a JSON object of objects, or cannot be obeyed, see `Filters`.
    """
    try:
        filters = read_object(path)
    except NoInput as error:
        raise NoInput(f"the BIDS filter file {error}") from error
    except BadData as error:
        raise UsageError(f"the BIDS filter file {error}") from error
    for key, queries in filters.items():
        if not isinstance(queries, dict):
            raise UsageError(
                f"the BIDS filter file {path} must hold an object under {key!r}, which should be a modality, "
                'as in {"t1w": {"subject": "01"}}'
            )
    try:
        Filters(bids_filters=filters)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return filters


def strip_prefix(label: str, entity: str) -> str:
    """The label without a leading ``sub-`` or ``ses-``."""
    return label.removeprefix(f"{entity}-")


def labels(requested: tuple[str, ...], entity: str) -> tuple[str, ...]:
    """Labels without prefix, each once, in the order of the request."""
    return tuple(dict.fromkeys(strip_prefix(label, entity) for label in requested))


def accepts(filters: Filters, run: Run) -> bool:
    """Whether the filters want a run of a participant whom they want."""
    return (
        run.suffix in filters.modalities
        and run.entities.get("part", "mag") == "mag"
        and (not filters.sessions or bool(sessions_of(run) & {*labels(filters.sessions, "ses")}))
        and all(_matches(run, key, wanted) for key, wanted in _modality_filter(filters, run.modality).items())
    )


def sessions_of(run: Run) -> set[str]:
    """Labels of a run's session: both where its name contradicts its folder, so that it is not missed."""
    folders = {strip_prefix(part, "ses") for part in run.relative.parts[1:-2]}
    return folders if run.session is None else {run.session, *folders}


def _modality_filter(filters: Filters, modality: str) -> dict[str, tuple[str | None, ...]]:
    if not isinstance(filters.bids_filters, Mapping):
        raise UsageError("the filter file must hold one JSON object with keys such as t1w and t2w")
    wanted: dict[str, tuple[str | None, ...]] = {}
    for key, queries in filters.bids_filters.items():
        if key.casefold() != modality.casefold():
            continue
        if not isinstance(queries, Mapping):
            raise UsageError(
                f"the filter file must hold an object of entities and labels under the key {key!r}"
            )
        wanted |= {_entity_key(name): _alternatives(name, value) for name, value in queries.items()}
    return wanted


def _entity_key(name: str) -> str:
    key = ENTITY_KEYS.get(name, name)
    if key not in _KEYS | {"datatype", "suffix", "extension"}:
        raise UsageError(
            f"the BIDS filter file names {name!r}, which is no BIDS entity; correct or remove it"
        )
    return key


def _alternatives(name: str, value: object) -> tuple[str | None, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    for label in values:
        if isinstance(label, bool) or not isinstance(label, str | int | None):
            raise UsageError(
                f"the BIDS filter file gives {label!r} for {name!r}; use a label, a list, '*' or null"
            )
    return tuple(None if label is None else str(label) for label in values)


def _matches(run: Run, key: str, wanted: tuple[str | None, ...]) -> bool:
    label = _value(run, key)
    return any(_equal(key, label, one) for one in wanted)


def _value(run: Run, key: str) -> str | None:
    if key == "extension":
        return ".nii.gz" if run.path.name.endswith(".nii.gz") else ".nii"
    own = {"suffix": run.suffix, "datatype": run.datatype}
    return own.get(key) or run.entities.get(key)


def _equal(key: str, label: str | None, wanted: str | None) -> bool:
    if label is None or wanted is None:
        return label is wanted
    if wanted == "*":
        return True
    if key in INDEX_KEYS and label.isdecimal() and wanted.isdecimal():
        # Indices are compared as text because Python refuses to convert thousands of digits to a number.
        return label.lstrip("0") == wanted.lstrip("0")
    return label == (f".{wanted.lstrip('.')}" if key == "extension" else strip_prefix(wanted, key))
