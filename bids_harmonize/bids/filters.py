"""Which runs a user wants: participants, sessions, modalities, and the filter file of the NiPreps apps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bids_harmonize.bids.runs import Run
from bids_harmonize.errors import UsageError

_SHORT = {
    "subject": "sub",
    "session": "ses",
    "sample": "sample",
    "task": "task",
    "acquisition": "acq",
    "ceagent": "ce",
    "staining": "stain",
    "tracer": "trc",
    "reconstruction": "rec",
    "direction": "dir",
    "modality": "mod",
    "echo": "echo",
    "flip": "flip",
    "inversion": "inv",
    "mtransfer": "mt",
    "recording": "recording",
    "processing": "proc",
    "hemisphere": "hemi",
    "resolution": "res",
    "density": "den",
    "description": "desc",
    "nucleus": "nuc",
    "volume": "voi",
    "run": "run",
    "part": "part",
    "space": "space",
    "split": "split",
    "chunk": "chunk",
    "label": "label",
    "segmentation": "seg",
}
_KNOWN = frozenset(_SHORT.values())
_INDEXED = frozenset({"run", "echo", "flip", "inv", "split", "chunk"})


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What to select.

    Parameters
    ----------
    participants, excluded, sessions
        Labels, with or without ``sub-`` and ``ses-``. Empty: all participants, none excluded, all sessions.
        An excluded label that the dataset lacks is no error.
    modalities
        Of ``T1w``, ``T2w`` and ``inplaneT2``.
    bids_filters
        The content of a filter file as fMRIPrep takes it: per modality (``t1w``, ``t2w``, in any case; other
        keys are ignored) the wanted value of entities, by long or short name. None: the entity is absent;
        ``"*"``: it has any label; else a label, or a list of these.

    Raises
    ------
    UsageError
        If a filter names an unknown entity, or wants something that is no label.
    """

    participants: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("T1w", "T2w")
    bids_filters: Mapping[str, Mapping[str, object]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse a filter file that could not be obeyed."""
        for modality in ("T1w", "T2w"):
            _modality_filter(self, modality)


def strip_prefix(label: str, entity: str) -> str:
    """The label without a leading ``sub-`` or ``ses-``."""
    return label.removeprefix(f"{entity}-")


def labels(given: tuple[str, ...], entity: str) -> tuple[str, ...]:
    """Labels without prefix, each once, in the order given."""
    return tuple(dict.fromkeys(strip_prefix(label, entity) for label in given))


def accepts(filters: Filters, run: Run) -> bool:
    """Whether the filters want a run of a participant whom they want."""
    return (
        run.suffix in filters.modalities
        and run.entities.get("part", "mag") == "mag"
        and (not filters.sessions or bool(_sessions(run) & {*labels(filters.sessions, "ses")}))
        and all(_matches(run, key, wanted) for key, wanted in _modality_filter(filters, run.modality).items())
    )


def _sessions(run: Run) -> set[str | None]:
    # A file whose name contradicts its folder is selected by either, so that it is reported and not missed.
    return {run.session, *(strip_prefix(part, "ses") for part in run.relative.parts[1:-2])}


def _modality_filter(filters: Filters, modality: str) -> dict[str, tuple[str | None, ...]]:
    if not isinstance(filters.bids_filters, Mapping):
        raise UsageError("The filter file must hold one JSON object with keys such as t1w and t2w.")
    wanted: dict[str, tuple[str | None, ...]] = {}
    for key, queries in filters.bids_filters.items():
        if key.casefold() != modality.casefold():
            continue
        if not isinstance(queries, Mapping):
            raise UsageError(f"The filter file's {key!r} must be an object of entities and labels.")
        wanted |= {_short(name): _alternatives(name, value) for name, value in queries.items()}
    return wanted


def _short(name: str) -> str:
    key = _SHORT.get(name, name)
    if key not in _KNOWN | {"datatype", "suffix", "extension"}:
        raise UsageError(f"The filter file names {name!r}, which is no BIDS entity.")
    return key


def _alternatives(name: str, value: object) -> tuple[str | None, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int | None):
            raise UsageError(
                f"The filter file wants {one!r} of {name!r}; use labels, a list of labels, '*' or null."
            )
    return tuple(None if one is None else str(one) for one in values)


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
    if key in _INDEXED and label.isdecimal() and wanted.isdecimal():
        # Not as numbers: Python converts no text of thousands of digits.
        return label.lstrip("0") == wanted.lstrip("0")
    return label == (f".{wanted.lstrip('.')}" if key == "extension" else strip_prefix(wanted, key))
